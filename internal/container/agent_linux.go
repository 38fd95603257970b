package container

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/previewd/previewd/internal/sandbox"
)

// Agent is the whole life of the first process of a container. It ends, and with
// it all that is in the container, when the host's end of its connection closes.
func Agent() (exitCode int) {
	if len(os.Args) > 3 && os.Args[2] == launchArg {
		return launch(os.Args[3:])
	}
	a := &agent{}
	if err := a.run(); err != nil && !errors.Is(err, io.EOF) {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// launch becomes another program once it is told to: when it is in its group.
func launch(argv []string) (exitCode int) {
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return 1 // its owner has gone
	}
	err := syscall.Exec(argv[0], argv, []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"})
	fmt.Fprintf(os.Stderr, "cannot run %s: %v\n", argv[0], err)
	return 1
}

type agent struct {
	hello
	tasks  *sandbox.Tasks
	counts *counters
}

func (a *agent) run() error {
	if err := becomeBuilder(); err != nil {
		return err
	}
	control, err := dialHost()
	if err != nil {
		return err
	}
	lines := bufio.NewScanner(control)
	lines.Buffer(nil, maxLine)
	if err := nextLine(lines, &a.hello); err != nil {
		return err
	}
	answer := json.NewEncoder(control)
	if err := a.prepare(); err != nil {
		return errors.Join(err, answer.Encode(reply{Error: err.Error()}))
	}
	if err := answer.Encode(reply{}); err != nil {
		return err
	}
	for {
		var r request
		if err := nextLine(lines, &r); err != nil {
			return err
		}
		done, err := a.serve(r)
		if err != nil {
			return err
		}
		if err := answer.Encode(done); err != nil {
			return err
		}
	}
}

// becomeBuilder gives up being root, which gVisor's containers begin as so that they
// can bound their processes.
func becomeBuilder() error {
	if os.Geteuid() != 0 {
		return nil
	}
	return errors.Join(syscall.Setgroups(nil), syscall.Setgid(builderID), syscall.Setuid(builderID))
}

func dialHost() (*net.UnixConn, error) {
	return net.DialUnix("unix", nil, &net.UnixAddr{Name: filepath.Join(linkDir, socketName), Net: "unix"})
}

func nextLine(lines *bufio.Scanner, message any) error {
	if !lines.Scan() {
		if err := lines.Err(); err != nil {
			return err
		}
		return io.EOF
	}
	return json.Unmarshal(lines.Bytes(), message)
}

// prepare makes all ready that tasks find.
func (a *agent) prepare() (err error) {
	a.counts = newCounters()
	if a.tasks, err = sandbox.NewTasks(); err != nil {
		return err
	}
	for i, port := range a.Ports {
		l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
		if err != nil {
			return fmt.Errorf("cannot listen: %w", err)
		}
		go a.forward(l, uint32(i))
	}
	if a.Modules {
		if err := copyModules(modulesDir, filepath.Join(sandbox.Workspace, modulesName)); err != nil {
			return fmt.Errorf("cannot lay packages out: %w", err)
		}
	}
	return nil
}

// connect opens a connection to the host, and says what it is for.
func (a *agent) connect(purpose byte, number uint32) (*net.UnixConn, error) {
	conn, err := dialHost()
	if err != nil {
		return nil, err
	}
	header := append([]byte(a.Secret), purpose)
	if _, err = conn.Write(binary.BigEndian.AppendUint32(header, number)); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// forward hands connections to a port over to the host.
func (a *agent) forward(l *net.TCPListener, port uint32) {
	slots := make(chan struct{}, maxConnections)
	for {
		slots <- struct{}{}
		inner, err := l.AcceptTCP()
		if err != nil {
			<-slots
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue // files are short: tasks hold them
		}
		go func() {
			defer func() { <-slots }()
			defer inner.Close()
			outer, err := a.connect(forPort, port)
			if err != nil {
				return
			}
			defer outer.Close()
			join(inner, outer)
		}()
	}
}

// join copies both ways until both ends have ended.
func join(inner *net.TCPConn, outer *net.UnixConn) {
	back := make(chan struct{})
	go func() {
		defer close(back)
		_, err := io.Copy(inner, outer)
		_ = inner.CloseWrite()
		if err != nil {
			outer.Close()
		}
	}()
	_, err := io.Copy(outer, inner)
	_ = outer.CloseWrite()
	if err != nil {
		outer.Close()
	}
	<-back
}

// serve does what is asked. An error ends the container.
func (a *agent) serve(r request) (reply, error) {
	if r.Op == opProbe {
		return reply{Checks: sandbox.SelfChecks(r.Hidden), GVisor: isGVisor()}, nil
	}
	conn, err := a.connect(forTask, r.ID)
	if err != nil {
		return reply{}, err
	}
	defer conn.Close()
	switch r.Op {
	case opRun:
		return a.runTask(r.Task, conn)
	case opUnpack:
		err = sandbox.LayOut(conn)
	case opPack:
		p := &packer{limits: a.Limits, all: r.All}
		err = p.pack(conn)
	default:
		err = fmt.Errorf("the first process does not know how to %q", r.Op)
	}
	if err != nil {
		return reply{Error: err.Error()}, nil
	}
	return reply{}, nil
}

func (a *agent) runTask(t sandbox.Task, conn *net.UnixConn) (reply, error) {
	// A pipe, since programs cannot open /dev/stdout when it is a socket.
	read, write, err := os.Pipe()
	if err != nil {
		return reply{}, err
	}
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		_, _ = io.Copy(conn, read)
		read.Close() // who goes on writing is told
	}()
	before := a.counts.events()
	code := a.tasks.Run(t, write)
	write.Close()
	<-copied
	after := a.counts.events()
	usage := a.counts.usage()
	return reply{
		Code: code, CPU: usage.CPU, Memory: usage.Memory,
		OutOfMemory: after.killed > before.killed, ProcessesBound: after.refused > before.refused,
	}, nil
}

// isGVisor reports whether the kernel is gVisor's.
func isGVisor() bool {
	_, err := os.Stat("/proc/gvisor/kernel_is_gvisor")
	if err == nil {
		return true
	}
	var name unix.Utsname
	if unix.Uname(&name) != nil {
		return false
	}
	return strings.Contains(unix.ByteSliceToString(name.Release[:]), "gvisor")
}

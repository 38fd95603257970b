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
	"syscall"

	"github.com/previewd/previewd/internal/sandbox"
)

// Agent is the whole life of the first process of a container. It ends, and with
// it all that is in the container, when the host's end of its connection closes.
func Agent() (exitCode int) {
	a := &agent{root: os.Geteuid() == 0}
	var err error
	switch {
	case len(os.Args) > 3 && os.Args[2] == launchArg:
		err = launch(os.Args[3:])
	case len(os.Args) > 3 && os.Args[2] == checkArg:
		err = json.NewEncoder(os.Stdout).Encode(sandbox.SelfChecks(os.Args[3]))
	default:
		err = a.run()
	}
	if err != nil && !errors.Is(err, io.EOF) {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// launch becomes another program once it is told to: when it is in its group.
func launch(argv []string) error {
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return err // its owner has gone
	}
	err := syscall.Exec(argv[0], argv, []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"})
	return fmt.Errorf("cannot run %s: %w", argv[0], err)
}

type agent struct {
	hello
	root   bool        // of gVisor's kernel, which tasks are not
	thread chan func() // then: what is to be done on the one that starts tasks
	tasks  *sandbox.Tasks
	group  *sandbox.Group // the container's own
}

func (a *agent) run() error {
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
	requests := make(chan request)
	go func() {
		for {
			var r request
			if nextLine(lines, &r) != nil {
				os.Exit(0) // the host has gone, whatever a task is at
			}
			requests <- r
		}
	}()
	for r := range requests {
		done, err := a.serve(r)
		if err != nil {
			return err
		}
		done.ID = r.ID
		if err := answer.Encode(done); err != nil {
			return err
		}
	}
	return nil
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
	a.group = sandbox.GroupInside()
	if a.tasks, err = sandbox.NewTasks(); err != nil {
		return err
	}
	if a.root {
		a.tasks.RunAs(a.UID)
		if err := a.ownKernel(); err != nil {
			return err
		}
	}
	for i, port := range a.Ports {
		l, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
		if err != nil {
			return fmt.Errorf("cannot listen: %w", err)
		}
		go a.forward(l, uint32(i))
	}
	if a.Modules && !a.root {
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
		checks, err := a.probe(r.Hidden)
		return reply{GVisor: isGVisor(), Checks: checks}, err
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
		err = a.asBuilder(func() error { return sandbox.LayOut(conn) })
	case opPack:
		p := &packer{limits: a.Limits, all: r.All}
		err = a.asBuilder(func() error { return p.pack(conn) })
	default:
		err = fmt.Errorf("the first process does not know how to %q", r.Op)
	}
	if err != nil {
		return reply{Error: err.Error()}, nil
	}
	return reply{}, nil
}

func (a *agent) runTask(t sandbox.Task, conn *net.UnixConn) (reply, error) {
	// A pipe, since programs cannot open /dev/stdout when it is a socket; the builder's
	// own, whom alone it lets.
	var read, write *os.File
	err := a.asBuilder(func() (err error) {
		read, write, err = os.Pipe()
		return err
	})
	if err != nil {
		return reply{}, err
	}
	copied := make(chan struct{})
	go func() {
		defer close(copied)
		_, _ = io.Copy(conn, read)
		read.Close() // who goes on writing is told
	}()
	before, watch := a.group.Events(), watchProcesses(a.group)
	code := 0
	err = a.onThread(func() error {
		code = a.tasks.Run(t, write)
		return nil
	})
	write.Close()
	<-copied
	after, met := a.group.Events(), watch()
	usage := a.group.Usage()
	return reply{
		Code: code, CPU: usage.CPU, Memory: usage.Memory,
		OutOfMemory: after.Killed > before.Killed, ProcessesBound: met || after.Refused > before.Refused,
	}, err
}

package sandbox

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"unsafe"

	seccomp "github.com/elastic/go-seccomp-bpf"
	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// deniedSyscalls reach parts of the kernel that no build needs, and that ways out
// of containers have gone through.
var deniedSyscalls = strings.Fields(`
	mount umount2 pivot_root chroot unshare setns move_mount open_tree fsopen fsconfig fsmount fspick mount_setattr
	keyctl add_key request_key bpf perf_event_open userfaultfd ptrace process_vm_readv process_vm_writev kcmp pidfd_getfd
	kexec_load kexec_file_load init_module finit_module delete_module open_by_handle_at name_to_handle_at quotactl
	swapon swapoff reboot acct syslog iopl ioperm settimeofday clock_settime sethostname setdomainname personality
	lookup_dcookie vhangup mbind set_mempolicy migrate_pages move_pages fanotify_init mknod mknodat
	open_tree_attr quotactl_fd modify_ldt memfd_secret listmount statmount`)

// missingSyscalls are said not to exist, so that programs do without: the filter
// cannot look into what they are given.
var missingSyscalls = []string{"clone3", "io_uring_setup", "io_uring_enter", "io_uring_register"}

const newNamespaces = unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWPID | unix.CLONE_NEWIPC |
	unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP

// socketFamilies are the only ones that builds have sockets of, in ascending order.
var socketFamilies = []uint64{unix.AF_UNIX, unix.AF_INET, unix.AF_INET6, unix.AF_NETLINK}

// socketProtocols are the only ones of a family, in ascending order: others load
// modules that nobody looks at.
var socketProtocols = map[uint64][]uint64{
	unix.AF_INET:    {0, unix.IPPROTO_TCP, unix.IPPROTO_UDP},
	unix.AF_INET6:   {0, unix.IPPROTO_TCP, unix.IPPROTO_UDP},
	unix.AF_NETLINK: {unix.NETLINK_ROUTE},
}

// parserSyscalls are those that a process does without that parses strangers'
// source and runs nothing: it starts no program, speaks to nobody, signals no other,
// and changes of files their content alone. Landlock would let it change whose they
// are, their modes and times, wherever they are.
var parserSyscalls = strings.Fields(`
	execve execveat fork vfork socket socketpair kill tkill rt_sigqueueinfo rt_tgsigqueueinfo pidfd_open pidfd_send_signal
	process_madvise prlimit64 shmget shmat msgget semget mq_open memfd_create inotify_init inotify_init1
	chmod fchmod fchmodat fchmodat2 chown lchown fchown fchownat utime utimes futimesat utimensat truncate
	setxattr lsetxattr fsetxattr setxattrat removexattr lremovexattr fremovexattr removexattrat
	setpriority sched_setaffinity sched_setscheduler sched_setparam sched_setattr ioprio_set setpgid setsid adjtimex clock_adjtime`)

// callRules say which system calls are refused with EPERM beside those that always
// are: by name, or when their arguments fit.
type callRules struct {
	denied     []string
	conditions []seccomp.NameWithConditions
}

func when(name string, conditions ...seccomp.Condition) seccomp.NameWithConditions {
	return seccomp.NameWithConditions{Name: name, Conditions: conditions}
}

// boxCalls are the rules of boxes.
func boxCalls() (r callRules) {
	none := func(argument uint32, values ...uint64) (all []seccomp.Condition) {
		for _, v := range values {
			all = append(all, seccomp.Condition{Argument: argument, Operation: seccomp.NotEqual, Value: v})
		}
		return all
	}
	r.conditions = append(r.conditions, when("socket", none(0, socketFamilies...)...), when("socketpair", none(0, unix.AF_UNIX)...))
	for family, protocols := range socketProtocols {
		is := seccomp.Condition{Argument: 0, Operation: seccomp.Equal, Value: family}
		r.conditions = append(r.conditions, when("socket", append(none(2, protocols...), is)...))
	}
	return r
}

// parserCalls are the rules of the calling process, which Confine confines. Of what
// makes processes it keeps what makes threads, and of signals its own.
func parserCalls() callRules {
	const word = 1<<32 - 1 // of a command the kernel reads no more, and the filter all
	return callRules{parserSyscalls, []seccomp.NameWithConditions{
		when("clone", seccomp.Condition{Argument: 0, Operation: seccomp.BitsNotSet, Value: unix.CLONE_THREAD}),
		when("tgkill", seccomp.Condition{Argument: 0, Operation: seccomp.NotEqual, Value: uint64(os.Getpid())}),
		// Input that comes is told to a process by a signal.
		when("fcntl", seccomp.Condition{Argument: 1, Operation: seccomp.Equal, Value: unix.F_SETOWN}),
		when("fcntl", seccomp.Condition{Argument: 1, Operation: seccomp.Equal, Value: unix.F_SETOWN_EX}),
		when("fcntl", seccomp.Condition{Argument: 1, Operation: seccomp.GreaterThan, Value: word}),
	}}
}

// program returns the filter's program.
func (r callRules) program() ([]bpf.RawInstruction, error) {
	if runtime.GOARCH != "amd64" && runtime.GOARCH != "arm64" { // others have ways around, such as socketcall
		return nil, fmt.Errorf("there is no filter of system calls for %s: %w", runtime.GOARCH, errors.ErrUnsupported)
	}
	machine, err := arch.GetInfo("")
	if err != nil {
		return nil, err
	}
	known := func(names []string) (here []string) {
		for _, name := range names {
			if _, ok := machine.SyscallNames[name]; ok {
				here = append(here, name)
			}
		}
		return here
	}
	policy := seccomp.Policy{
		DefaultAction: seccomp.ActionAllow,
		Syscalls: []seccomp.SyscallGroup{
			{Action: seccomp.ActionErrno | seccomp.Action(unix.ENOSYS), Names: known(missingSyscalls)},
			{
				Action: seccomp.ActionErrno | seccomp.Action(unix.EPERM), Names: known(slices.Concat(deniedSyscalls, r.denied)),
				NamesWithCondtions: append(r.conditions, when("clone", seccomp.Condition{Argument: 0, Operation: seccomp.BitsSet, Value: newNamespaces})),
			},
		},
	}
	program, err := policy.Assemble()
	if err != nil {
		return nil, err
	}
	// The library lets the calls of another architecture pass: on x86-64 those of
	// the 32-bit one would go around a list of what is denied.
	own := []bpf.Instruction{
		bpf.LoadAbsolute{Off: 4, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: uint32(machine.ID), SkipTrue: 1},
		bpf.RetConstant{Val: unix.SECCOMP_RET_KILL_PROCESS},
	}
	if runtime.GOARCH == "amd64" {
		// Before Linux 5.4 these are the calls of x32, without its bit (seccomp(2)).
		own = append(own,
			bpf.LoadAbsolute{Off: 0, Size: 4},
			bpf.JumpIf{Cond: bpf.JumpLessThan, Val: 512, SkipTrue: 2},
			bpf.JumpIf{Cond: bpf.JumpGreaterThan, Val: 547, SkipTrue: 1},
			bpf.RetConstant{Val: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)})
	}
	return bpf.Assemble(append(own, program...))
}

// filter puts the filter on the calling thread and what it starts, or with
// SECCOMP_FILTER_FLAG_TSYNC on all threads of the process.
func (r callRules) filter(flags uintptr) error {
	raw, err := r.program()
	if err != nil {
		return fmt.Errorf("cannot make the filter of system calls: %w", err)
	}
	filter := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		filter[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	thread, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&program)))
	if errno != 0 {
		return fmt.Errorf("cannot filter system calls: %w", errno)
	}
	if thread != 0 {
		return fmt.Errorf("cannot filter the system calls of thread %d", thread)
	}
	return nil
}

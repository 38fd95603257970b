package sandbox

import (
	"encoding/binary"
	"runtime"
	"testing"

	"github.com/elastic/go-seccomp-bpf/arch"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// The profile for container runtimes and the native filter say the same of a call.
func TestProfileSaysWhatTheFilterSays(t *testing.T) {
	t.Parallel()
	raw, err := boxCalls().program()
	require.NoError(t, err)
	program, _ := bpf.Disassemble(raw)
	filter, err := bpf.NewVM(program)
	require.NoError(t, err)
	profile, err := SyscallProfile()
	require.NoError(t, err)
	machine, err := arch.GetInfo("")
	require.NoError(t, err)

	same := func(name string, args ...uint64) {
		t.Helper()
		number, ok := machine.SyscallNames[name]
		if !ok {
			return
		}
		data := make([]byte, 64) // struct seccomp_data, whose words the machine below reads from their big end
		binary.BigEndian.PutUint32(data, uint32(number))
		binary.BigEndian.PutUint32(data[4:], uint32(machine.ID))
		for i, arg := range args {
			binary.BigEndian.PutUint32(data[16+8*i:], uint32(arg))
			binary.BigEndian.PutUint32(data[20+8*i:], uint32(arg>>32))
		}
		got, err := filter.Run(data)
		require.NoError(t, err)
		want := uint32(unix.SECCOMP_RET_ALLOW)
		if errno := profile.errno(name, args); errno != 0 {
			want = unix.SECCOMP_RET_ERRNO | uint32(errno)
		}
		require.Equal(t, want, uint32(got), "%s %v", name, args)
	}
	for name := range machine.SyscallNames {
		same(name, 1, 1, 0)
	}
	const high = 1 << 32 // the kernel does not read it
	for family := range uint64(60) {
		for _, protocol := range []uint64{0, 1, 6, 7, 9, 16, 17, 18, 136, 262, high, high + 6} {
			same("socket", family, unix.SOCK_STREAM, protocol)
			same("socketpair", family, unix.SOCK_STREAM, protocol)
		}
		same("socket", family+high, unix.SOCK_STREAM, 0)
	}
	for bit := range 64 {
		same("clone", 1<<bit|17)
	}
}

// On old kernels the calls of x32 have numbers that look like this architecture's.
func TestOldKernelsHaveNoWayAround(t *testing.T) {
	t.Parallel()
	if runtime.GOARCH != "amd64" {
		t.Skip("SKIPPED: x32 is amd64's")
	}
	machine, err := arch.GetInfo("")
	require.NoError(t, err)
	for _, rules := range []callRules{boxCalls(), parserCalls()} {
		raw, err := rules.program()
		require.NoError(t, err)
		program, _ := bpf.Disassemble(raw)
		filter, err := bpf.NewVM(program)
		require.NoError(t, err)
		for number := uint32(500); number < 560; number++ {
			data := make([]byte, 64)
			binary.BigEndian.PutUint32(data, number)
			binary.BigEndian.PutUint32(data[4:], uint32(machine.ID))
			got, err := filter.Run(data)
			require.NoError(t, err)
			want := uint32(unix.SECCOMP_RET_ALLOW)
			if number >= 512 && number <= 547 {
				want = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
			}
			require.Equal(t, want, uint32(got), number)
		}
	}
}

// errno is what a runtime makes of the profile: the first rule that fits, 0 for none.
func (p *Profile) errno(name string, args []uint64) uint {
	fits := func(a ProfileArg) bool {
		value := uint64(0)
		if int(a.Index) < len(args) {
			value = args[a.Index]
		}
		switch a.Op {
		case "SCMP_CMP_EQ":
			return value == a.Value
		case "SCMP_CMP_GE":
			return value >= a.Value
		}
		return value&a.Value == a.ValueTwo // SCMP_CMP_MASKED_EQ
	}
	for _, rule := range p.Syscalls {
		named, all := false, true
		for _, n := range rule.Names {
			named = named || n == name
		}
		for _, a := range rule.Args {
			all = all && fits(a)
		}
		if named && all {
			return rule.ErrnoRet
		}
	}
	return 0
}

package sandbox

import (
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// Profile is the filter on system calls in the form in which container runtimes
// take it (OCI runtime specification, linux.seccomp; Docker's seccomp=).
type Profile struct {
	DefaultAction string        `json:"defaultAction"`
	Architectures []string      `json:"architectures"` // calls of any other kill
	Syscalls      []ProfileRule `json:"syscalls"`
}

// ProfileRule says what becomes of system calls whose arguments fit.
type ProfileRule struct {
	Names    []string     `json:"names"`
	Action   string       `json:"action"`
	ErrnoRet uint         `json:"errnoRet"`
	Args     []ProfileArg `json:"args,omitempty"` // all must fit; each is of another argument
}

// ProfileArg compares an argument, unsigned.
type ProfileArg struct {
	Index    uint   `json:"index"`
	Value    uint64 `json:"value"`
	ValueTwo uint64 `json:"valueTwo"` // of SCMP_CMP_MASKED_EQ, what is compared to; Value is the mask
	Op       string `json:"op"`
}

// SyscallProfile returns the filter that boxes have, for a container runtime.
func SyscallProfile() (*Profile, error) {
	arches := map[string]string{"amd64": "SCMP_ARCH_X86_64", "arm64": "SCMP_ARCH_AARCH64"}
	own, ok := arches[runtime.GOARCH]
	if !ok {
		return nil, fmt.Errorf("there is no filter of system calls for %s", runtime.GOARCH)
	}
	p := &Profile{DefaultAction: "SCMP_ACT_ALLOW", Architectures: []string{own}}
	p.deny(unix.ENOSYS, missingSyscalls)
	p.deny(unix.EPERM, deniedSyscalls)
	for bit := uint64(1); bit <= newNamespaces; bit <<= 1 {
		if newNamespaces&bit != 0 {
			p.deny(unix.EPERM, []string{"clone"}, ProfileArg{Index: 0, Value: bit, ValueTwo: bit, Op: "SCMP_CMP_MASKED_EQ"})
		}
	}
	for _, other := range except(0, socketFamilies) {
		p.deny(unix.EPERM, []string{"socket"}, other)
	}
	for _, other := range except(0, []uint64{unix.AF_UNIX}) {
		p.deny(unix.EPERM, []string{"socketpair"}, other)
	}
	for _, family := range socketFamilies {
		if protocols, ok := socketProtocols[family]; ok {
			for _, other := range except(2, protocols) {
				p.deny(unix.EPERM, []string{"socket"}, ProfileArg{Index: 0, Value: family, Op: "SCMP_CMP_EQ"}, other)
			}
		}
	}
	return p, nil
}

func (p *Profile) deny(errno unix.Errno, names []string, args ...ProfileArg) {
	p.Syscalls = append(p.Syscalls, ProfileRule{Names: names, Action: "SCMP_ACT_ERRNO", ErrnoRet: uint(errno), Args: args})
}

// except returns comparisons of which one fits every value but those that are
// allowed, which ascend. Runtimes take two comparisons of one argument for
// alternatives, so that "is none of these" cannot be said in a rule. Values of more
// bits than the kernel reads are above all that is allowed.
func except(index uint, allowed []uint64) (others []ProfileArg) {
	next := uint64(0)
	for _, value := range allowed {
		for ; next < value; next++ {
			others = append(others, ProfileArg{Index: index, Value: next, Op: "SCMP_CMP_EQ"})
		}
		next = value + 1
	}
	return append(others, ProfileArg{Index: index, Value: next, Op: "SCMP_CMP_GE"})
}

//go:build failpoint

package fault

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// ErrInjected is what a point returns that is told to fail.
var ErrInjected = errors.New("injected fault")

// action is what a point does when it is passed.
type action struct {
	mu   sync.Mutex
	skip int // passes that do nothing yet
	do   string
	wait time.Duration
}

var points = parse(os.Getenv("PREVIEWD_FAILPOINTS"))

// parse reads "name=kill@3;other=delay:50ms;third=err": what each point does,
// and from which pass on.
func parse(text string) map[string]*action {
	found := map[string]*action{}
	for _, part := range strings.FieldsFunc(text, func(r rune) bool { return r == ';' }) {
		name, do, _ := strings.Cut(part, "=")
		a := &action{}
		if verb, pass, ok := strings.Cut(do, "@"); ok {
			n, err := strconv.Atoi(pass)
			if err != nil {
				panic("PREVIEWD_FAILPOINTS: " + part)
			}
			do, a.skip = verb, n-1
		}
		if verb, wait, ok := strings.Cut(do, ":"); ok {
			d, err := time.ParseDuration(wait)
			if err != nil {
				panic("PREVIEWD_FAILPOINTS: " + part)
			}
			do, a.wait = verb, d
		}
		a.do = do
		found[name] = a
	}
	return found
}

// Point does what PREVIEWD_FAILPOINTS says of the name: "kill" ends the process
// as SIGKILL does, "err" returns ErrInjected once, "fail" each time, "delay" waits.
func Point(name string) error {
	a := points[name]
	if a == nil {
		return nil
	}
	a.mu.Lock()
	due := a.skip == 0
	a.skip--
	a.mu.Unlock()
	switch {
	case a.do == "delay" && a.skip < 0:
		time.Sleep(a.wait)
	case a.do == "fail" && a.skip < 0:
		return ErrInjected
	case !due:
	case a.do == "kill":
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // the signal is on its way
	case a.do == "err":
		return ErrInjected
	}
	return nil
}

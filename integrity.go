package previewd

import "time"

// Integrity says whether every promise about the rows and files holds.
type Integrity struct {
	OK        bool      `json:"ok" doc:"True when every check holds."`
	CheckedAt time.Time `json:"checkedAt"`
	TookMS    int64     `json:"tookMs"`
	Checks    []Check   `json:"checks" nullable:"false"`
}

// Check is one promise, and how often it is broken.
type Check struct {
	Name        string   `json:"name" doc:"Stays the same for ever, such as project_without_first_build."`
	Description string   `json:"description" doc:"The promise."`
	Count       int      `json:"count" doc:"How many break it; 0 is as it must be."`
	Examples    []string `json:"examples,omitempty" doc:"Some that break it, at most ten."`
	Fixable     bool     `json:"fixable,omitempty" doc:"True when previewd doctor --fix has a repair for it."`
}

// NewIntegrity says what a check found that began at a moment. Checks of the same
// name, as of two databases, are one.
func NewIntegrity(began time.Time, checks []Check) *Integrity {
	found := &Integrity{CheckedAt: began.UTC(), TookMS: time.Since(began).Milliseconds(), Checks: []Check{}}
	at := map[string]int{}
	for _, c := range checks {
		i, known := at[c.Name]
		if !known {
			at[c.Name] = len(found.Checks)
			found.Checks = append(found.Checks, c)
			continue
		}
		sum := &found.Checks[i]
		sum.Count += c.Count
		sum.Examples = append(sum.Examples, c.Examples...)
	}
	found.OK = len(Broken(found.Checks)) == 0
	return found
}

// Broken returns the checks that do not hold.
func Broken(checks []Check) []Check {
	var broken []Check
	for _, c := range checks {
		if c.Count > 0 {
			broken = append(broken, c)
		}
	}
	return broken
}

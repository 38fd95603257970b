package webhook

import "time"

// Schedule is how long to wait before each attempt, as Standard Webhooks has it.
// After the last one a delivery has failed, three days after it began.
func Schedule() []time.Duration {
	return []time.Duration{
		0, 5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour,
		5 * time.Hour, 10 * time.Hour, 14 * time.Hour, 20 * time.Hour, 24 * time.Hour,
	}
}

const (
	maxDelay = 24 * time.Hour
	jitter   = 0.1 // of the delay, to both sides: receivers that come back are not met by all at once
)

// delayAfter returns how long to wait after a failed attempt, and whether there is
// another one. random is from 0 to 1.
func delayAfter(attempt int, retryAfter time.Duration, random float64) (delay time.Duration, again bool) {
	schedule := Schedule()
	if attempt >= len(schedule) {
		return 0, false
	}
	delay = time.Duration(float64(schedule[attempt]) * (1 + jitter*(2*random-1)))
	return min(max(delay, retryAfter), maxDelay), true
}

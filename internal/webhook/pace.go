package webhook

import (
	"math/rand/v2"
	"time"
)

const (
	firstPause = 5 * time.Second // and after that twice as long each time

	longestPause = 5 * time.Minute // of an endpoint: so long after it works again it hears of what is new
	longestRetry = time.Hour       // of an event that is refused while others are taken

	mostRetryAfter = 24 * time.Hour // a longer one is taken for a mistake
)

// backoff is how long to wait after so many failures in a row, from 1: twice as long each time, up to the longest, and then up to half of it
// less, so that what has failed together does not come together again.
func backoff(failures int, longest time.Duration) time.Duration {
	d := longest
	if shift := failures - 1; shift < 20 {
		d = min(firstPause<<shift, longest)
	}
	return d/2 + rand.N(d/2+1) //nolint:gosec // a pause needs no cryptographic chance
}

// asked is how long to wait where the endpoint has said so, and up to a tenth longer: all workers were told the same.
func asked(after time.Duration) time.Duration {
	after = min(after, mostRetryAfter)
	return after + rand.N(after/10+1) //nolint:gosec // likewise
}

// pace is how fast an endpoint is posted to. Each failure halves how many posts are under way at once, each success allows one more. Where one alone
// fails too, there is a pause, and after it one post that finds out whether it was long enough:
//
//	16 -> 8 -> 4 -> 2 -> 1 -> pause, 1 -> longer pause, 1 -> 2 -> 3 ...
//
// So one event that an endpoint stumbles over does not stop the others, and an endpoint that is away is left alone.
type pace struct {
	most   int       // posts at once
	width  int       // how many of them are allowed now
	pauses int       // in a row, without a success since
	until  time.Time // when the pause ends
	paused time.Time // when it began
}

// failure is what a failed post says of its endpoint.
type failure struct {
	known bool          // it answers, and this event it has refused before
	slow  bool          // it wants fewer posts
	after time.Duration // it wants to be left alone for so long; 0: it does not say
}

func newPace(most int) pace { return pace{most: most, width: most} }

// room is how many more posts may begin, of which so many are under way.
func (p *pace) room(now time.Time, underWay int) int {
	if now.Before(p.until) {
		return 0
	}
	return max(p.width-underWay, 0)
}

// failing reports whether the endpoint takes nothing: there was a pause and no success after it.
func (p *pace) failing() bool { return p.pauses > 0 }

// succeeded is called for a post that began at that time.
func (p *pace) succeeded(began time.Time) {
	if began.Before(p.paused) {
		return // the endpoint has changed its mind since
	}
	p.width, p.pauses = min(p.width+1, p.most), 0
}

// failed is called for a post that began at that time and failed now. why says what the failure is about.
func (p *pace) failed(began, now time.Time, why failure) {
	if why.after > 0 {
		if until := now.Add(asked(why.after)); until.After(p.until) {
			p.until = until
		}
	}
	switch {
	case began.Before(p.paused), why.known && !p.failing():
		return // it says nothing new
	case p.width > 1 && !why.slow:
		p.width /= 2
		return
	}
	p.width, p.paused = 1, now
	p.pauses++
	if until := now.Add(backoff(p.pauses, longestPause)); until.After(p.until) {
		p.until = until
	}
}

package pages

import "time"

const (
	remembered = 64 // seconds
	chartSpan  = 60 // of which the page shows so many
	rateSpan   = 5  // and a rate is the average of so many
)

// rates remembers what happened in each of the last seconds. It leaves out the current
// second, which is not over and would look like a dip.
type rates struct {
	second       int64 // the newest, since 1970
	sent, failed [remembered]uint32
}

// add counts what happens now.
func (r *rates) add(now time.Time, sent, failed uint32) {
	r.roll(now.Unix())
	r.sent[r.second%remembered] += sent
	r.failed[r.second%remembered] += failed
}

// roll forgets what is too long ago.
func (r *rates) roll(second int64) {
	for s := max(r.second+1, second-remembered+1); s <= second; s++ {
		r.sent[s%remembered], r.failed[s%remembered] = 0, 0
	}
	r.second = max(r.second, second)
}

// rate is how many were sent a second, of late.
func (r *rates) rate(now time.Time) float64 {
	r.roll(now.Unix())
	sum := uint32(0)
	for s := r.second - rateSpan; s < r.second; s++ {
		sum += r.sent[s%remembered]
	}
	return float64(sum) / rateSpan
}

// chart is what was sent and what failed in each of the last seconds, oldest first.
func (r *rates) chart(now time.Time) (sent, failed []uint32) {
	r.roll(now.Unix())
	for s := r.second - chartSpan; s < r.second; s++ {
		sent = append(sent, r.sent[s%remembered])
		failed = append(failed, r.failed[s%remembered])
	}
	return sent, failed
}

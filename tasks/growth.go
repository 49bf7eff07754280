package tasks

import "time"

// How connections grow, and shrink again.
const (
	growEvery = time.Second // one more, or one less, at most
	growDone  = 4           // so many messages a connection has to have carried before one more is opened
	growJudge = 4           // so many more connections are judged together: what one brings is lost in chance
	idleFor   = 30          // looks at which there was nothing to do for two connections before one of them is closed

	refusedMin = time.Minute // how long after a refusal, or after more have brought nothing, no more are tried
	refusedMax = time.Hour
)

// growth decides how many connections a mailer has, where nobody has said so: from a few up to most, one more a second while
// mail waits and that helps. Whether it does only the rate can tell. A relay that is far away takes twice as much over twice the
// connections, one whose processors are busy takes no more over any number, and then each message waits longer
// instead. So four more connections have to bring at least a quarter of what they would if the relay were only far away:
//
//	connections     4       5   6   7   8       9 ...
//	rate          200     250 300 350 400           8 for 4: twice as much, so on to 12
//	rate          200     210 205 207 215           8 for 4: less than a quarter more, so back to 4
//
// After a refusal there is one less than were open, so that another worker finds room too. The number that was not good is the
// ceiling from then on. After a minute it is tried again, and after pauses that double up to an hour while it is no better.
//
// The zero value never grows. It knows no lock.
type growth struct {
	base, most int // most is 0 if it does not grow
	now        int // connections that there are to be

	looked  time.Time       // last
	since   time.Time       // when the measurement of the rate has begun
	carried int             // messages since then
	from    int             // connections when this run of growing has begun; 0: none is under way
	rates   map[int]float64 // by connections, in this run

	low bool // the last one was too low

	spare int // looks in a row at which two connections had nothing to do

	ceiling int           // beyond it none before due
	due     time.Time     //
	pause   time.Duration // that ends then
}

func newGrowth(base, most int) growth {
	return growth{base: base, most: most, now: base, ceiling: most}
}

// grows reports whether the number changes by itself.
func (g *growth) grows() bool { return g.most > g.base }

// rests reports whether the connection of that rank, from 0, is not to be open.
func (g *growth) rests(rank int) bool { return g.grows() && rank >= g.now }

// moment is what a mailer does.
type moment struct {
	at    time.Time
	open  int  // connections
	waits bool // mail, for a connection
	idle  int  // connections that have nothing to do
	free  bool // the relay has refused none that it ought to have
}

// change is what has come of a look: more or fewer connections than before.
type change struct {
	by      int
	useless float64 // if not 0: the rate is only so many times that of fewer connections
	through bool    // growing has come to its end for now
}

// look decides on the number of connections. It is called about once a second.
func (g *growth) look(m moment) (c change) {
	if m.at.Sub(g.looked) > 2*growEvery { // there was no mail
		g.begin(m.at)
	}
	g.looked = m.at
	if !m.waits || !m.free || m.idle > 0 {
		c.through = g.from > 0
		g.begin(m.at)
		g.from, g.low = 0, false
		if g.spare++; m.idle < 2 {
			g.spare = 0
		}
		if g.spare >= idleFor && g.now > g.base {
			c.by, g.now = -1, g.now-1
		}
		return c
	}
	g.spare = 0
	took := m.at.Sub(g.since)
	switch {
	case m.open < g.now:
		g.begin(m.at) // the last one is not open yet
		return c
	case took < growEvery*9/10, g.carried < growDone*g.now:
		return c
	}
	rate := float64(g.carried) / took.Seconds()
	g.begin(m.at)
	if g.from == 0 {
		if !g.mayGrow(m.at) {
			return c
		}
		g.from, g.rates = g.now, map[int]float64{}
	}
	g.rates[g.now] = rate
	before := max(g.from, g.now-growJudge)
	if more := g.now - before; more == growJudge || g.now == g.most && more*growJudge >= before {
		gain := rate / g.rates[before]
		if low := gain < 1+float64(more)/float64(before)/4; low && !g.low {
			g.low = true // it may have been a bad second: seen twice, it counts
			return c
		} else if low {
			c.by, c.useless, c.through = before-g.now, gain, true
			g.stop(before, m.at)
			return c
		}
		if g.now > g.ceiling {
			g.ceiling, g.pause = g.most, 0
		}
	}
	g.low = false
	if !g.mayGrow(m.at) {
		c.through, g.from = true, 0
		return c
	}
	g.now++
	c.by = 1
	return c
}

// mayGrow reports whether one more connection may be tried.
func (g *growth) mayGrow(now time.Time) bool {
	return g.now < g.most && (g.now < g.ceiling || !now.Before(g.due))
}

// begin begins a measurement.
func (g *growth) begin(now time.Time) { g.since, g.carried = now, 0 }

// refused notes that the relay has refused a connection, or all mail, while so many were open. It returns how many fewer there
// are to be.
func (g *growth) refused(open int, now time.Time) (less int) {
	if g.now == g.base {
		return 0
	}
	before := g.now
	g.stop(max(min(open-1, g.now-1), g.base), now)
	return before - g.now
}

// stop goes back to a number, and lets no more be tried for a while.
func (g *growth) stop(back int, now time.Time) {
	g.now, g.from, g.ceiling, g.low = back, 0, back, false
	if !now.Before(g.due) { // the first of several refusals
		g.pause = min(max(2*g.pause, refusedMin), refusedMax)
		g.due = now.Add(g.pause)
	}
	g.begin(now)
}

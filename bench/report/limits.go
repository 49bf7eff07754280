package report

import (
	"cmp"
	"fmt"
	"slices"
)

// limit says what was busy in one of our contenders, and so what to look at next.
type limit struct {
	Title   string
	Parts   []limitPart
	Verdict string
}

type limitPart struct {
	Name string
	Cost float64 // us a mail
	Busy float64 // processors
	Full string
}

// limits looks at the first contender of the two scenarios that the goals are about. The
// keys are those of package scenario.
func limits(r *Run) []limit {
	var all []limit
	for _, name := range []string{"drain", "bulk"} {
		if s := r.Scenario(name); s != nil && s.Contenders[0].Stat("rate").N > 0 {
			all = append(all, limitOf(s, float64(r.Machine.Cores)))
		}
	}
	return all
}

func limitOf(s *Scenario, processors float64) limit {
	c := s.Contenders[0]
	rate := c.Stat("rate").Median
	part := func(name string, cost float64, full string) limitPart {
		if full != "" {
			full = Number(1e6/cost) + full
		}
		return limitPart{Name: name, Cost: cost, Busy: cost * rate / 1e6, Full: full}
	}
	cost := func(key string) float64 { return c.Stat(key).Median }
	rest := max(cost("machine_us")-cost("worker_us")-cost("redis_us")-cost("sink_us"), 0)
	l := limit{Title: s.Title, Parts: []limitPart{
		part("worker", cost("worker_us"), " mails/s for each processor it has"),
		part("Redis", cost("redis_us"), " mails/s: one thread does all the work"),
		part("smtp-sink", cost("sink_us"), " mails/s: one thread does all the work"),
		part("the system, and whatever else ran here", rest, ""),
	}}
	l.Verdict = verdict(l.Parts, processors)
	return l
}

// crowded is the share of the processors from which on they are what everything waits for.
const crowded = 0.8

func verdict(parts []limitPart, processors float64) string {
	busy := 0.0
	for _, p := range parts {
		busy += p.Busy
	}
	first := slices.MaxFunc(parts, func(a, b limitPart) int { return cmp.Compare(a.Busy, b.Busy) })
	together := fmt.Sprintf("Together they kept %s of the machine's %s processors busy. ", Number(busy), Number(processors))
	switch {
	case parts[1].Busy > crowded:
		return together + "**Redis's one thread is the limit**: more mails a second need fewer commands a mail, or more masters."
	case parts[2].Busy > crowded:
		return together + "**smtp-sink's one thread is the limit**, not what is measured."
	case busy > crowded*processors:
		return together + fmt.Sprintf("**The processors are the limit**, and most of them goes to: %s. With more processors the rate grows "+
			"until one of the parts is at its end.", first.Name)
	}
	return together + "So it is not processors that are short. **The limit is waiting**: a connection ends its next mail when " +
		"the mail server has answered the last one and Redis knows of it."
}

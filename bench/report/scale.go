package report

import (
	"fmt"
	"math"
)

// Cost is what one mail costs.
type Cost struct {
	Rate     float64 // mails/s that one worker process delivered
	Worker   float64 // us of processor time
	Redis    float64 // us, handing over and delivering
	Producer float64 // us
	Waiting  float64 // bytes in Redis
	Network  float64 // bytes to and from Redis
}

// Costs are those of a mail that is a task of its own, of one of a bulk mailing, and of one
// of a bulk mailing that is sent with CHUNKING.
type Costs struct {
	Single, Bulk, Chunked Cost
}

func (c Costs) complete() bool {
	sum := 0.0
	for _, cost := range []Cost{c.Single, c.Bulk, c.Chunked} {
		sum += cost.Rate + cost.Worker + cost.Redis + cost.Producer + cost.Waiting + cost.Network
	}
	return !math.IsNaN(sum) // what was not measured is NaN
}

// RedisFull is how many mails a second fill Redis's thread.
func (c Cost) RedisFull() float64 { return 1e6 / c.Redis }

// How the page reckons.
const (
	peakFactor = 3.0
	busyAtPeak = 0.6
	relayCost  = 2000.0 // us a mail
)

// volume is how many mails come in a day, and what that takes.
type volume struct {
	Name          string
	Average, Peak float64 // mails/s
	Relay         float64 // processors of a relay such as Postfix
	Single, Bulk  needs
	Chunked       needs
	Breaks        string
}

// needs is what the peak of a volume takes.
type needs struct {
	Workers, Masters, Producers float64
	Backlog                     float64 // GB
	Gbit                        float64 // a second
}

func (c Cost) at(peak float64) needs {
	processors := func(us float64) float64 { return peak * us / 1e6 / busyAtPeak }
	return needs{
		Workers: processors(c.Worker), Producers: processors(c.Producer), Masters: math.Ceil(processors(c.Redis)),
		Backlog: peak * 3600 * c.Waiting / 1e9, Gbit: peak * c.Network * 8 / 1e9,
	}
}

// scalePage is what scale.md is made of.
type scalePage struct {
	Costs
	Volumes []volume
}

func scale(c Costs) scalePage {
	p := scalePage{Costs: c}
	for _, v := range []struct {
		name   string
		day    float64
		breaks func(Costs, volume) string
	}{
		{"1 million mails", 1e6, breaksSmall},
		{"100 million mails", 1e8, breaksMiddle},
		{"10 billion mails", 1e10, breaksLarge},
	} {
		average := v.day / 86400
		peak := peakFactor * average
		out := volume{
			Name: v.name, Average: average, Peak: peak, Relay: peak * relayCost / 1e6 / busyAtPeak,
			Single: c.Single.at(peak), Bulk: c.Bulk.at(peak), Chunked: c.Chunked.at(peak),
		}
		out.Breaks = v.breaks(c, out)
		p.Volumes = append(p.Volumes, out)
	}
	return p
}

func breaksSmall(c Costs, _ volume) string {
	return fmt.Sprintf("One worker and one Redis on the smallest machine there is: the worker delivers a whole day's mail in %s minutes. Two workers, so that one may be restarted. "+
		"**What breaks first** is outside: how many mails a second the relay and the receivers take from one sender.", Number(1e6/c.Single.Rate/60))
}

func breaksMiddle(c Costs, v volume) string {
	return fmt.Sprintf("The peak is %s %% of what one worker process delivered here. **What breaks first** is memory, with one task a mail: an hour without the relay leaves %s GB in Redis, and %s GB as bulk mail. "+
		"Give Redis that much, with a replica of the same size. The relay needs more processors than everything "+
		"else together.", Number(100*v.Peak/c.Single.Rate), Number(v.Single.Backlog), Number(v.Bulk.Backlog))
}

func breaksLarge(c Costs, v volume) string {
	return fmt.Sprintf("**What breaks first** is Redis's thread: one Redis is full at %s mails a second, so one task a mail takes %s masters, bulk mail %s, "+
		"and the queues spread over them. Next is memory: the backlog of an hour is %s TB with one task a mail and %s TB as bulk mail. The first is more than one should keep in memory, so such a "+
		"sender needs bulk mail, relays that are never all away, or producers that wait. Third is the number of worker processes: one delivered %s mails a second here, so "+
		"one task a mail takes %s of them at the peak. And the relays are a fleet of their own.",
		Number(c.Single.RedisFull()), Number(v.Single.Masters), Number(v.Bulk.Masters), Number(v.Single.Backlog/1000), Number(v.Bulk.Backlog/1000),
		Number(c.Single.Rate), Number(math.Ceil(v.Peak/c.Single.Rate)))
}

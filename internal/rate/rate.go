// Package rate reads how much mail a relay takes in what time. It is the one place that knows how such a rate is written:
// settings check rates with it, and a worker keeps to them.
package rate

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Limit is how many messages, or recipients, there may be in a period.
//
// With a Burst they are spread evenly: so many at once after a pause, and then one each Per/Most. In any period there are
// Most and the Burst on top of it at most. Without one they come as they come, until there were Most in the last period: a quota.
type Limit struct {
	Most  int
	Per   time.Duration
	Burst int // at least 1; 0: a quota
}

// The periods, by what they are called.
var periods = map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour}

// maxMost bounds the numbers: no relay takes more, and Redis reckons in doubles.
const maxMost = 1_000_000_000

// Error is why something is no rate.
type Error struct {
	Text   string // what was read
	Reason string
}

func (e *Error) Error() string { return fmt.Sprintf("%q is not a rate: %s", e.Text, e.Reason) }

const form = "write a number, a slash and s, m, h or d, as in 200/s or 30/m burst=5"

// ParseLimit reads a limit: "200/s", "1000/h", "30/m burst=5", "50000/d". The error is an *Error.
//
// A second and a minute are spread evenly, with a burst of 1 if none is said. An hour and a day are quotas unless a burst is said.
func ParseLimit(text string) (Limit, error) {
	bad := func(format string, args ...any) (Limit, error) {
		return Limit{}, &Error{Text: strings.TrimSpace(text), Reason: fmt.Sprintf(format, args...)}
	}
	words := strings.Fields(text)
	if len(words) == 0 {
		return bad("it is empty; " + form)
	}
	most, unit, ok := strings.Cut(words[0], "/")
	per, known := periods[unit]
	if !ok || !known {
		return bad(form)
	}
	l := Limit{Per: per}
	var err error
	if l.Most, err = strconv.Atoi(most); err != nil || l.Most < 1 || l.Most > maxMost {
		return bad("the number before the slash has to be a whole one from 1 to %d", maxMost)
	}
	if per <= time.Minute {
		l.Burst = 1
	}
	for i, word := range words[1:] {
		n, is := strings.CutPrefix(word, "burst=")
		if !is || i > 0 {
			return bad("behind it only burst= and a number may stand, once, and a comma before the next rate")
		}
		if l.Burst, err = strconv.Atoi(n); err != nil || l.Burst < 1 || l.Burst > maxMost {
			return bad("burst= has to be a whole number from 1 to %d", maxMost)
		}
	}
	return l, nil
}

// String writes the limit as ParseLimit reads it.
func (l Limit) String() string {
	for unit, per := range periods {
		if per != l.Per {
			continue
		}
		text := strconv.Itoa(l.Most) + "/" + unit
		if usual := per <= time.Minute; l.Burst > 1 || l.Burst == 1 && !usual {
			text += " burst=" + strconv.Itoa(l.Burst)
		}
		return text
	}
	return fmt.Sprintf("%d in %v burst=%d", l.Most, l.Per, l.Burst)
}

// PerSecond is how many there are in a second in the long run.
func (l Limit) PerSecond() float64 { return float64(l.Most) / l.Per.Seconds() }

// check refuses a limit that was made by hand and is none.
func (l Limit) check() error {
	if l.Most < 1 || l.Most > maxMost || l.Per <= 0 || l.Burst < 0 || l.Burst > maxMost {
		return &Error{Text: l.String(), Reason: form}
	}
	return nil
}

// Limits hold all at once.
type Limits []Limit

// ParseLimits reads limits separated by commas, and names all that are none.
func ParseLimits(text string) (Limits, error) {
	var all Limits
	var bad []error
	for part := range strings.SplitSeq(text, ",") {
		if strings.TrimSpace(part) == "" {
			continue // a comma at the end, or two of them
		}
		l, err := ParseLimit(part)
		switch {
		case err != nil:
			bad = append(bad, err)
		case slices.Contains(all, l):
			bad = append(bad, &Error{Text: l.String(), Reason: "it is there twice"})
		default:
			all = append(all, l)
		}
	}
	return all, errors.Join(bad...)
}

// String writes the limits as ParseLimits reads them.
func (l Limits) String() string {
	words := make([]string, len(l))
	for i, one := range l {
		words[i] = one.String()
	}
	return strings.Join(words, ", ")
}

// MarshalText writes the limits as String does.
func (l Limits) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText reads the limits as ParseLimits does.
func (l *Limits) UnmarshalText(text []byte) (err error) {
	*l, err = ParseLimits(string(text))
	return err
}

// PerSecond is what the lowest of them has in the long run, 0 if there is none.
func (l Limits) PerSecond() float64 {
	lowest := 0.0
	for _, one := range l {
		if r := one.PerSecond(); lowest == 0 || r < lowest {
			lowest = r
		}
	}
	return lowest
}

// Within is how many there may be at most in that time, without what is left of bursts; 0: no limit.
func (l Limits) Within(d time.Duration) int {
	most := 0
	for _, one := range l {
		n := one.Most
		if one.Burst > 0 || d > one.Per {
			n = int(min(one.PerSecond()*d.Seconds(), maxMost))
		}
		if n = max(n, 1); most == 0 || n < most {
			most = n
		}
	}
	return most
}

// Domain is a limit for the messages to one domain of recipients.
type Domain struct {
	Name  string // in lower case and without a dot at its end; "*": each one that has none of its own
	Limit Limit
}

// Domains are the limits of domains. A domain may have several, which hold all at once.
type Domains []Domain

// AnyDomain stands for each domain that has no limit of its own.
const AnyDomain = "*"

// ParseDomains reads "gmail.com:20/s, *:50/s", and names all that cannot be meant.
func ParseDomains(text string) (Domains, error) {
	var all Domains
	var bad []error
	for part := range strings.SplitSeq(text, ",") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		name, limit, ok := strings.Cut(part, ":")
		if name = CanonicalDomain(strings.TrimSpace(name)); !ok || !isDomain(name) {
			bad = append(bad, &Error{Text: part, Reason: "write a domain, or *, then a colon and its rate, as in gmail.com:20/s"})
			continue
		}
		l, err := ParseLimit(limit)
		d := Domain{name, l}
		switch {
		case err != nil:
			bad = append(bad, err)
		case slices.Contains(all, d):
			bad = append(bad, &Error{Text: part, Reason: "it is there twice"})
		default:
			all = append(all, d)
		}
	}
	return all, errors.Join(bad...)
}

func isDomain(name string) bool {
	return name == AnyDomain || name != "" && !strings.ContainsAny(name, " \t@*/<>\"'") && !strings.HasPrefix(name, ".")
}

// CanonicalDomain is a domain as it is compared: in lower case and without the dot at its end.
func CanonicalDomain(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// String writes the domains as ParseDomains reads them.
func (d Domains) String() string {
	words := make([]string, len(d))
	for i, one := range d {
		words[i] = one.Name + ":" + one.Limit.String()
	}
	return strings.Join(words, ", ")
}

// Of returns the limits of a domain, none if it may have all.
func (d Domains) Of(name string) Limits {
	own, others := Limits(nil), Limits(nil)
	for _, one := range d {
		switch one.Name {
		case name:
			own = append(own, one.Limit)
		case AnyDomain:
			others = append(others, one.Limit)
		}
	}
	if own != nil {
		return own
	}
	return others
}

// Rates are all limits of a mailer's relay, for all workers together. The zero value is none.
type Rates struct {
	Messages    Limits
	Recipients  Limits // of messages
	Connections int    // open at once; 0: no limit
	Domains     Domains
}

// Check refuses rates that were made by hand and are none. The error is an *Error.
func (r Rates) Check() error {
	if r.Connections < 0 {
		return &Error{Text: strconv.Itoa(r.Connections), Reason: "there cannot be fewer than no connections"}
	}
	var bad []error
	for _, l := range slices.Concat(r.Messages, r.Recipients) {
		bad = append(bad, l.check())
	}
	for _, d := range r.Domains {
		bad = append(bad, d.Limit.check())
	}
	return errors.Join(bad...)
}

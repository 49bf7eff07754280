package settings

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/mailpouch/mailpouch/internal/hostname"
	"github.com/mailpouch/mailpouch/internal/name"
	"github.com/mailpouch/mailpouch/internal/rate"
	"github.com/mailpouch/mailpouch/internal/replyrule"
)

// Seconds is a duration that may also be written as Django does, as a plain number
// of seconds: "2.5" is "2.5s".
type Seconds time.Duration

// UnmarshalText reads a duration as Go writes it, or a number of seconds.
func (s *Seconds) UnmarshalText(text []byte) error {
	if d, err := time.ParseDuration(string(text)); err == nil {
		*s = Seconds(d)
		return nil
	}
	n, err := strconv.ParseFloat(string(text), 64)
	if err != nil || math.IsNaN(n) || math.Abs(n) > math.MaxInt64/float64(2*time.Second) {
		return fmt.Errorf(`%q is neither a number of seconds ("10", "2.5") nor a duration ("30s", "5m")`, text)
	}
	*s = Seconds(n * float64(time.Second))
	return nil
}

// String writes the duration as Go does.
func (s Seconds) String() string { return time.Duration(s).String() }

// Hosts is a list of servers, in order of preference.
type Hosts []string

// UnmarshalText reads hosts separated by commas.
func (h *Hosts) UnmarshalText(text []byte) error {
	var all Hosts
	for host := range strings.SplitSeq(string(text), ",") {
		host = strings.TrimSpace(host)
		if err := checkHost(host); err != nil {
			return err
		}
		all = append(all, host)
	}
	*h = all
	return nil
}

// String writes the hosts separated by commas.
func (h Hosts) String() string { return strings.Join(h, ",") }

// checkHost accepts a host name or an IP address. The most common mistakes are a URL, a
// port, and a shell's quotes.
func checkHost(host string) error {
	if _, err := netip.ParseAddr(host); err == nil || hostname.IsUnicode(strings.TrimSuffix(host, ".")) {
		return nil
	}
	return fmt.Errorf("%q is not the name or the IP address of a host; the port has its own setting", host)
}

// checkAddr refuses what is no host:port to listen on.
func checkAddr(addr string) error {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return err
	}
	if host != "" {
		if err := checkHost(host); err != nil {
			return err
		}
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return fmt.Errorf("%q is not a port; it has to be 0 to 65535", port)
	}
	return nil
}

// isRemoteAddr reports whether other machines can reach what listens at host:port. No host is every interface.
func isRemoteAddr(addr string) bool {
	host, _, err := net.SplitHostPort(addr)
	return err == nil && (host == "" || hostname.IsRemote(host))
}

// Mechanisms are ways to log in, in order of preference. They are those of the smtp backend.
type Mechanisms []string

// tokenMechanisms are the values of EMAIL_AUTH_MECHANISMS that go with a token.
func tokenMechanisms() []string { return []string{"XOAUTH2", "OAUTHBEARER"} }

// UnmarshalText reads names separated by commas or blanks, in any case.
func (m *Mechanisms) UnmarshalText(text []byte) error {
	known := append([]string{"SCRAM-SHA-256", "CRAM-MD5", "PLAIN", "LOGIN"}, tokenMechanisms()...)
	var all Mechanisms
	for _, name := range strings.Fields(strings.ReplaceAll(strings.ToUpper(string(text)), ",", " ")) {
		if !slices.Contains(known, name) {
			return fmt.Errorf("%q is none of %s", name, strings.Join(known, ", "))
		}
		if !slices.Contains(all, name) {
			all = append(all, name)
		}
	}
	*m = all
	return nil
}

// String writes the names separated by commas.
func (m Mechanisms) String() string { return strings.Join(m, ",") }

// List is a list of names or files.
type List []string

// UnmarshalText reads entries separated by commas, with blanks around them allowed.
func (l *List) UnmarshalText(text []byte) error {
	var all List
	for entry := range strings.SplitSeq(string(text), ",") {
		if entry = strings.TrimSpace(entry); entry == "" {
			return errors.New("has an empty entry: put one comma between two entries, and none at the end")
		}
		all = append(all, entry)
	}
	*l = all
	return nil
}

// String writes the entries separated by commas.
func (l List) String() string { return strings.Join(l, ",") }

// Replies are rules for replies of a mail server.
type Replies []string

// UnmarshalText reads rules separated by commas, and names all that cannot be meant.
func (r *Replies) UnmarshalText(text []byte) error {
	var all Replies
	var bad []string
	for rule := range strings.SplitSeq(string(text), ",") {
		if rule = strings.TrimSpace(rule); rule == "" {
			continue // a comma at the end, or two of them
		}
		if _, err := replyrule.Parse(rule); err != nil {
			bad = append(bad, err.Error())
		}
		all = append(all, rule)
	}
	if *r = all; len(bad) > 0 {
		return errors.New(strings.Join(bad, "; "))
	}
	return nil
}

// String writes the rules separated by commas.
func (r Replies) String() string { return strings.Join(r, ", ") }

// Limits are rates that hold all at once.
type Limits []rate.Limit

// UnmarshalText reads rates separated by commas, and names all that are none.
func (l *Limits) UnmarshalText(text []byte) error {
	all, err := rate.ParseLimits(string(text))
	*l = Limits(all)
	return oneLine(err)
}

// String writes the rates separated by commas.
func (l Limits) String() string { return rate.Limits(l).String() }

// DomainLimits are rates of domains.
type DomainLimits []rate.Domain

// UnmarshalText reads domains with their rates, separated by commas, and names all that cannot be meant.
func (d *DomainLimits) UnmarshalText(text []byte) error {
	all, err := rate.ParseDomains(string(text))
	*d = DomainLimits(all)
	return oneLine(err)
}

// String writes the domains with their rates, separated by commas.
func (d DomainLimits) String() string { return rate.Domains(d).String() }

// oneLine is a joined error in one line.
func oneLine(err error) error {
	if err == nil {
		return nil
	}
	return errors.New(strings.ReplaceAll(err.Error(), "\n", "; "))
}

// Addresses is a list of mail addresses, with or without display names.
type Addresses []string

// UnmarshalText reads addresses separated by commas. A comma inside a quoted display
// name ("Doe, John" <john@example.com>) separates nothing.
func (a *Addresses) UnmarshalText(text []byte) error {
	list := strings.TrimSpace(string(text))
	if strings.HasPrefix(list, "[") || strings.HasPrefix(list, "(") {
		return errors.New("a Python list is not accepted here; write: Ann <ann@example.com>, bob@example.com")
	}
	var all Addresses
	for _, entry := range splitAddresses(list) {
		entry = strings.TrimSpace(entry)
		if entry == "" {
			continue // a comma at the end, or two of them
		}
		if err := checkAddress(entry); err != nil {
			return err
		}
		// In Doe, Ann <ann@example.com> the first half would pass as a local user.
		if n := len(all); n > 0 && !strings.Contains(all[n-1], "@") && strings.Contains(entry, "<") {
			return notAddress(all[n-1])
		}
		all = append(all, entry)
	}
	*a = all
	return nil
}

// String writes the addresses separated by commas.
func (a Addresses) String() string { return strings.Join(a, ", ") }

// splitAddresses splits at the commas outside quotes.
func splitAddresses(list string) []string {
	var entries []string
	start, quoted, escaped := 0, false, false
	for i := range len(list) {
		switch c := list[i]; {
		case escaped:
			escaped = false
		case quoted && c == '\\':
			escaped = true
		case c == '"':
			quoted = !quoted
		case c == ',' && !quoted:
			entries = append(entries, list[start:i])
			start = i + 1
		}
	}
	return append(entries, list[start:])
}

// checkAddress refuses what cannot be an address. It accepts a local part alone, such as root.
// The mailer checks addresses fully; this check must not refuse anything that the mailer accepts.
func checkAddress(address string) error {
	spec := strings.TrimSpace(address)
	if i := strings.LastIndexByte(spec, '<'); i >= 0 {
		var closed bool
		if spec, closed = strings.CutSuffix(spec[i+1:], ">"); !closed {
			return notAddress(address)
		}
	}
	local, domain := spec, "localhost"
	if i := strings.LastIndexByte(spec, '@'); i >= 0 {
		local, domain = spec[:i], spec[i+1:]
	}
	const separators = " \t,;<>"
	quoted := len(local) > 2 && local[0] == '"' && local[len(local)-1] == '"'
	if local == "" || domain == "" || strings.ContainsAny(domain, separators) ||
		!quoted && strings.ContainsAny(local, separators+`"`) {
		return notAddress(address)
	}
	return nil
}

func notAddress(text string) error {
	return fmt.Errorf(`%q is not a mail address; write ann@example.com, or Ann <ann@example.com>, and put quotes around a name with a comma`, text)
}

// Queues has the weight of each queue by its name: a queue of weight 6 is asked six
// times as often as one of weight 1.
type Queues map[string]int

// UnmarshalText reads "critical:6,default:3". A queue without a weight has weight 1.
func (q *Queues) UnmarshalText(text []byte) error {
	all := Queues{}
	for entry := range strings.SplitSeq(string(text), ",") {
		name, weight, weighted := strings.Cut(strings.TrimSpace(entry), ":")
		if err := checkQueueName(name); err != nil {
			return fmt.Errorf("%w, a colon before the weight and a comma before the next name, as in critical:6,default:3", err)
		}
		n := 1
		if weighted {
			var err error
			if n, err = strconv.Atoi(weight); err != nil || n < 1 || n > maxWeight {
				return fmt.Errorf("%q: the weight has to be a whole number from 1 to %d", entry, maxWeight)
			}
		}
		if _, twice := all[name]; twice {
			return fmt.Errorf("queue %q is named twice", name)
		}
		all[name] = n
	}
	*q = all
	return nil
}

// maxWeight bounds the list that asynq builds: each queue is in it as often as its weight says.
const maxWeight = 100

// String writes the queues as UnmarshalText reads them, the heaviest first.
func (q Queues) String() string {
	names := slices.SortedFunc(maps.Keys(q), func(a, b string) int {
		return cmp.Or(cmp.Compare(q[b], q[a]), cmp.Compare(a, b))
	})
	entries := make([]string, len(names))
	for i, name := range names {
		entries[i] = name + ":" + strconv.Itoa(q[name])
	}
	return strings.Join(entries, ",")
}

// checkQueueName refuses what programs and workers refuse too.
func checkQueueName(queue string) error {
	if !name.Is(queue) {
		return fmt.Errorf("%q is not a queue's name; use %s", queue, name.Rule)
	}
	return nil
}

// hasControl reports whether text has characters that could end a header field or an SMTP
// command, or is not UTF-8.
func hasControl(text string) bool {
	return !utf8.ValidString(text) || strings.ContainsFunc(text, unicode.IsControl)
}

// Names is the list of the mailers beside the default one, which has no name.
type Names []string

// UnmarshalText reads names separated by commas.
func (n *Names) UnmarshalText(text []byte) error {
	var all Names
	for name := range strings.SplitSeq(string(text), ",") {
		all = append(all, strings.TrimSpace(name))
	}
	*n = all
	return nil
}

// String writes the names separated by commas.
func (n Names) String() string { return strings.Join(n, ",") }

func isMailerName(name string) bool {
	inner := func(r rune) bool { return r == '-' || r == '_' || r >= 'a' && r <= 'z' || r >= '0' && r <= '9' }
	return name != "" && strings.Trim(name, "-_") == name && !strings.ContainsFunc(name, func(r rune) bool { return !inner(r) })
}

// Members are the mailers that a failover mailer sends with, in order of preference.
type Members []Member

// Member is one of them.
type Member struct {
	Name   string // in EMAIL_MAILERS
	Weight int
}

// UnmarshalText reads "ses:3,postmark:1". A member without a weight has weight 1.
func (m *Members) UnmarshalText(text []byte) error {
	var all Members
	for entry := range strings.SplitSeq(string(text), ",") {
		name, weight, weighted := strings.Cut(strings.TrimSpace(entry), ":")
		if !isMailerName(name) {
			return fmt.Errorf("%q is not a mailer's name; write names of EMAIL_MAILERS, a colon before the weight and a comma before the next name, as in ses:3,postmark:1", name)
		}
		n := 1
		if weighted {
			var err error
			if n, err = strconv.Atoi(weight); err != nil || n < 1 || n > maxMemberWeight {
				return fmt.Errorf("%q: the weight has to be a whole number from 1 to %d", entry, maxMemberWeight)
			}
		}
		if slices.ContainsFunc(all, func(other Member) bool { return other.Name == name }) {
			return fmt.Errorf("%q is named twice", name)
		}
		all = append(all, Member{name, n})
	}
	*m = all
	return nil
}

const maxMemberWeight = 1000

// String writes the members as UnmarshalText reads them.
func (m Members) String() string {
	entries := make([]string, len(m))
	for i, one := range m {
		entries[i] = one.Name + ":" + strconv.Itoa(one.Weight)
	}
	return strings.Join(entries, ",")
}

// Tags are tags of messages that are counted apart.
type Tags []string

// The most tags that are counted apart, since each is a series of the metrics for each mailer and outcome, and the longest
// tag in bytes, as a message may have it. otherTag is what those that are not named are counted as.
const (
	maxTags  = 50
	maxTag   = 64
	otherTag = "other"
)

// UnmarshalText reads tags separated by commas.
func (t *Tags) UnmarshalText(text []byte) error {
	var all Tags
	for tag := range strings.SplitSeq(string(text), ",") {
		tag = strings.TrimSpace(tag)
		switch {
		case tag == "" || slices.Contains(all, tag):
			continue
		case tag == otherTag:
			return fmt.Errorf("%q is what the tags are counted as that are not named; leave it out", tag)
		case len(tag) > maxTag || !utf8.ValidString(tag) || strings.ContainsFunc(tag, func(r rune) bool { return !unicode.IsPrint(r) }):
			return fmt.Errorf("%.80q is no tag that a message can have: up to %d bytes of printable characters", tag, maxTag)
		case len(all) == maxTags:
			return fmt.Errorf("has more than %d tags: each is a series of the metrics", maxTags)
		}
		all = append(all, tag)
	}
	*t = all
	return nil
}

// String writes the tags separated by commas.
func (t Tags) String() string { return strings.Join(t, ",") }

package tasks

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/mailpouch/mailpouch/internal/handover"
)

// Failover is a mailer without a relay of its own: its messages go over the connections of its members, which are
// other mailers. They wait in the mailer's queues and are paused, cancelled and counted there; how many connections there are, and
// whether mail is held, is each member's.
//
// A message moves on to another member only while nothing of it can have been accepted: when its member is held, when
// that opens no connection, and when it has said nothing for ten seconds over all its connections.
type Failover struct {
	Members []Member

	// Weighted spreads the messages over all members that take mail, by their weights. Otherwise they go to the first
	// of them that does.
	Weighted bool
}

// Member is one of the mailers that a Failover sends with.
type Member struct {
	Mailer string // a name in WorkerConfig.Mailers
	Weight int    // at least 1; without Failover.Weighted it means nothing
}

// FailoverState is how the members of a mailer are.
type FailoverState struct {
	Mailer   string // "" for the default one
	Weighted bool
	Members  []MemberState // in their order
}

// MemberState is how a member is.
type MemberState struct {
	Member

	Serves bool  // the mailer's messages go there
	Reason error // why it is passed over; nil if it is not
}

// PassedOver is how many members do not serve that would if they took mail: those before the one that serves, and with
// weights all of them.
func (s FailoverState) PassedOver() int {
	n := 0
	for _, m := range s.Members {
		if m.Reason != nil {
			n++
		}
		if m.Serves && !s.Weighted {
			break
		}
	}
	return n
}

// serving are the names of the members that serve.
func (s FailoverState) serving() (names []string) {
	for _, m := range s.Members {
		if m.Serves {
			names = append(names, m.Mailer)
		}
	}
	return names
}

// reasons are the names of the members that are passed over, and why.
func (s FailoverState) reasons() (list membersError) {
	for _, m := range s.Members {
		if m.Reason != nil {
			list = append(list, &memberError{m.Mailer, m.Reason})
		}
	}
	return list
}

// same reports whether the members are as they were.
func (s FailoverState) same(before FailoverState) bool {
	return slices.EqualFunc(s.Members, before.Members, func(a, b MemberState) bool {
		return a.Serves == b.Serves && fmt.Sprint(a.Reason) == fmt.Sprint(b.Reason)
	})
}

// memberError is why a member takes no mail.
type memberError struct {
	member string
	err    error
}

func (e *memberError) Error() string { return e.member + ": " + e.err.Error() }

// Unwrap returns the reason.
func (e *memberError) Unwrap() error { return e.err }

// membersError is why none of several members takes mail.
type membersError []error

func (e membersError) Error() string {
	texts := make([]string, len(e))
	for i, err := range e {
		texts[i] = err.Error()
	}
	return strings.Join(texts, "; ")
}

// Unwrap returns the reasons of the members.
func (e membersError) Unwrap() []error { return e }

// FailoverError reports a mailer whose members cannot be used.
type FailoverError struct {
	Mailer string // "" for the default one
	Member string // the one at fault, if it is one
	Reason string
}

func (e *FailoverError) Error() string {
	text := "tasks: mailer " + cmp.Or(e.Mailer, handover.DefaultMailer) + ": "
	if e.Member != "" {
		text += "member " + e.Member + ": "
	}
	return text + e.Reason
}

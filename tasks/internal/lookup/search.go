package lookup

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/mailpouch/mailpouch/internal/find"
	"github.com/mailpouch/mailpouch/internal/history"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/mailer"
)

// Search says which messages are looked for: those that fit all that is not zero.
type Search struct {
	To      string    // a recipient's address, in full
	Tag     string    //
	Mailing string    //
	Since   time.Time // what has ended before that is left out
	Limit   int       // how many, the newest: 100 if zero
}

// Found is what a Search has found.
type Found struct {
	Messages []Status // those that have not ended first, then the newest first

	// More reports that there may be more than Search.Limit.
	More bool

	// Kept and Since are as in Status.
	Kept  time.Duration
	Since time.Time
}

// History returns the messages that fit a search: what waits, and what has ended as far as the history reaches back. It
// looks through all of both, as Status does for a Message-ID. The error of a recipient that is no address is
// of class Permanent.
func (l *Lookup) History(ctx context.Context, s Search) (Found, error) {
	if s.Limit <= 0 {
		s.Limit = 100
	}
	places, err := find.Queues(ctx, l.redis)
	if err != nil {
		return Found{}, err
	}
	if s.To != "" {
		e, err := (&mailer.EmailMessage{FromEmail: "x@example.com", To: []string{s.To}}).Envelope()
		if err != nil {
			return Found{}, &mailer.SendError{Class: mailer.Permanent, Step: mailer.StepRender, Err: err}
		}
		s.To = e.To[0]
	}
	var found Found
	needle := slices.DeleteFunc([]string{s.To, s.Mailing, s.Tag}, func(text string) bool { return text == "" })
	if len(needle) == 0 {
		needle = []string{""}
	}
	ids, err := l.waiting(ctx, places, needle[0], s.fits)
	if err != nil {
		return found, err
	}
	known := map[string]bool{}
	for _, id := range ids {
		if len(found.Messages) == s.Limit {
			found.More = true
			break
		}
		these, err := l.live(ctx, places, id)
		if err != nil {
			return found, err
		}
		for _, one := range these {
			if one.ID == id && (!one.State.Ended() || one.State == StateDead) {
				found.Messages = append(found.Messages, one)
				known[id+"\x00"+string(one.State)] = true
			}
		}
	}
	records, window, err := history.Search(ctx, l.redis, asynqNames(places), history.Query{
		To: s.To, Tag: s.Tag, Mailing: s.Mailing, Since: s.Since, Limit: s.Limit + 1,
	})
	for _, r := range records {
		one := statusOf(r)
		if known[one.ID+"\x00"+string(one.State)] { // a dead letter that is still there
			continue
		}
		if len(found.Messages) == s.Limit {
			found.More = true
			break
		}
		found.Messages = append(found.Messages, one)
	}
	found.Kept, found.Since = window.For, window.Since
	return found, err
}

// fits reports whether a message that waits is looked for.
func (s Search) fits(p *wire.Payload) bool {
	message := p.Message
	if len(p.Recipients) > 0 {
		message = message.WithRecipients(p.Recipients)
	}
	isTo := func(addr string) bool { return strings.EqualFold(addr, s.To) }
	return (s.To == "" || slices.ContainsFunc(history.Recipients(message), isTo)) &&
		(s.Tag == "" || slices.Contains(p.Tags, s.Tag)) && (s.Mailing == "" || p.Mailing == s.Mailing)
}

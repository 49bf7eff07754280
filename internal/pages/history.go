package pages

import (
	"context"
	_ "embed" // the page
	"net/http"
	"strings"
	"time"

	"github.com/mailpouch/mailpouch/internal/redact"
	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/tasks"
)

//go:embed history.html
var historyHTML string

// maxFound is how many messages to a recipient the page shows, and maxAsked how long what is looked for may be.
const (
	maxFound = 100
	maxAsked = 1000
)

// historyPatience is how long the page looks. It answers before the server's own time is up.
const historyPatience = 20 * time.Second

// history is the page on which a message is looked up: by its ID, by its Message-ID, or by a recipient. What is asked for comes by
// POST, so that no address is in a log or in a browser's history; a link to one message has its ID.
type history struct {
	lookup *tasks.Lookup
	page   *page
}

func newHistory(lookup *tasks.Lookup) *history {
	return &history{lookup: lookup, page: newPage(historyPath, historyHTML, "")}
}

// historyBody is what the template shows.
type historyBody struct {
	Asked   string // as it was asked for
	To      bool   // it is a recipient
	Message *tasks.Status
	Found   []tasks.Status
	More    bool
	Nothing bool
	Kept    time.Duration
	Since   time.Time
	Problem string
}

func (h *history) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	asked := r.FormValue("id")
	if r.Method == http.MethodPost {
		asked = r.PostFormValue("q")
	}
	body := historyBody{Asked: strings.TrimSpace(asked)}
	code := http.StatusOK
	switch {
	case body.Asked == "":
	case len(body.Asked) > maxAsked:
		body.Asked, body.Problem, code = "", "That is longer than any ID or address.", http.StatusBadRequest
	default:
		ctx, cancel := context.WithTimeout(r.Context(), historyPatience)
		defer cancel()
		if err := h.find(ctx, &body); err != nil {
			body.Problem, code = "It cannot be looked up: "+redact.Reason(err.Error(), false), http.StatusServiceUnavailable
			if mailer.ClassOf(err) == mailer.Permanent {
				code = http.StatusBadRequest
			}
		}
	}
	h.page.show(w, code, "Find a message", body)
}

// find looks for what is asked for: what has an @ is a recipient, or else a Message-ID.
func (h *history) find(ctx context.Context, b *historyBody) error {
	if strings.Contains(b.Asked, "@") && !strings.HasPrefix(b.Asked, "<") {
		found, err := h.lookup.History(ctx, tasks.Search{To: b.Asked, Limit: maxFound})
		if err != nil && mailer.ClassOf(err) != mailer.Permanent { // what is no address may be a Message-ID
			return err
		}
		b.Kept, b.Since = found.Kept, found.Since
		if len(found.Messages) > 0 {
			b.To, b.Found, b.More = true, found.Messages, found.More
			return nil
		}
	}
	s, err := h.lookup.Status(ctx, b.Asked)
	if err != nil {
		return err
	}
	b.Kept, b.Since = s.Kept, s.Since
	if b.Nothing = s.State == tasks.StateUnknown; !b.Nothing {
		b.Message, b.Found = &s, s.Parts
	}
	return nil
}

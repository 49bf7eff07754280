package httpapi

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mailpouch/mailpouch/mailer"
)

// sendMessage hands a message over: one as mailer.EmailMessage writes it, or a finished one (message/rfc822), whose envelope is that of its header
// unless the query says another one. How it waits is said in the query.
func sendMessage(c *call, w http.ResponseWriter) (any, error) {
	key, failed := c.idempotencyKey()
	if failed != nil {
		return nil, failed
	}
	kind, failed := c.mediaType(typeJSON, typeMessage)
	if failed != nil {
		return nil, failed
	}
	q := query{values: c.URL.Query()}
	o, from, to := q.options(), "", []string(nil)
	if kind == typeMessage {
		from, to = q.one("from"), q.many("to")
	}
	if failed := q.rest(); failed != nil {
		return nil, failed
	}
	data, leave, failed := c.body(w)
	defer leave()
	if failed != nil {
		return nil, failed
	}
	m, err := readMessage(kind, data)
	if err != nil {
		return nil, failure(err, true)
	}
	if from != "" {
		m.FromEmail = from
	}
	if len(to) > 0 {
		m.To = to
	}
	if failed := checkEnvelope(m); failed != nil {
		return nil, failed
	}
	o.IdempotencyKey = key
	id, failed := c.submit(m, o)
	if failed != nil {
		return nil, failed
	}
	return created{id}, nil
}

// readMessage reads a body of that type.
func readMessage(kind string, data []byte) (*mailer.EmailMessage, error) {
	if kind == typeMessage {
		return mailer.ParseRaw(data)
	}
	m := new(mailer.EmailMessage)
	return m, m.UnmarshalJSON(data)
}

// checkEnvelope refuses a message that says nothing of whom it is from, or is for nobody. Defaults are not for clients: they are who the
// program's own mail is from.
func checkEnvelope(m *mailer.EmailMessage) *apiError {
	switch {
	case m.FromEmail == "":
		return missing("from_email")
	case !hasDomain(m.FromEmail):
		return invalid("from_email", "has no domain: write shop@example.com")
	case len(m.Recipients()) == 0:
		return missing("to")
	}
	return checkRecipients(m)
}

// query reads the parameters of a query, each of which has to be known, and keeps the first error.
type query struct {
	values map[string][]string
	read   []string
	failed *apiError
}

// options are what the query says of how a message waits.
func (q *query) options() mailer.Options {
	o := mailer.Options{
		Queue: q.one("queue"), Using: q.one("mailer"), Mailing: q.one("mailing"), Tags: q.many("tag"),
		ProcessAt: q.time("process_at"), Deadline: q.time("deadline"),
	}
	if text := q.one("process_in"); text != "" {
		in, err := time.ParseDuration(text)
		if err != nil || in < 0 {
			q.fail("process_in", "is no duration such as 90m or 24h")
		}
		o.ProcessIn = in
	}
	if text := q.one("max_retry"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || (mailer.Options{MaxRetry: &n}).Validate() != nil {
			q.fail("max_retry", "is no number of tries")
		}
		o.MaxRetry = &n
	}
	switch text := q.one("at_most_once"); text {
	case "", "false":
	case "true":
		o.AtMostOnce = true
	default:
		q.fail("at_most_once", "is neither true nor false")
	}
	switch {
	case !o.ProcessAt.IsZero() && o.ProcessIn != 0:
		q.fail("process_in", "excludes process_at")
	case !o.Deadline.IsZero() && o.Due(time.Now()).After(o.Deadline):
		q.fail("deadline", "is before the time of sending")
	}
	return o
}

// many returns all values of a parameter.
func (q *query) many(name string) []string {
	q.read = append(q.read, name)
	return q.values[name]
}

// one returns the value of a parameter that is there once.
func (q *query) one(name string) string {
	switch all := q.many(name); len(all) {
	case 0:
		return ""
	case 1:
		return all[0]
	}
	q.fail(name, "is there twice")
	return ""
}

func (q *query) time(name string) time.Time {
	text := q.one(name)
	if text == "" {
		return time.Time{}
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		q.fail(name, "is no time such as 2026-12-24T18:00:00Z")
	}
	return at
}

func (q *query) fail(name, reason string) {
	if q.failed == nil {
		q.failed = invalid(name, reason)
	}
}

// rest refuses what is not known.
func (q *query) rest() *apiError {
	var unknown []string
	for name := range q.values {
		if !slices.Contains(q.read, name) {
			unknown = append(unknown, name)
		}
	}
	slices.Sort(unknown)
	if len(unknown) > 0 {
		q.fail(strings.ToValidUTF8(unknown[0], ""), "is no parameter that is known here")
	}
	return q.failed
}

package pages

import (
	_ "embed" // the page
	"encoding/json"
	"net/http"
	"net/url"

	"github.com/mailpouch/mailpouch/internal/redact"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/tasks"
)

//go:embed letter.html
var letterHTML string

// letterPage shows one message that failed, with all its tries: who, what and how much, but no body.
type letterPage struct {
	letters *letters
	page    *page
}

func newLetterPage(p *letters) *letterPage {
	return &letterPage{letters: p, page: newPage(p.source.path, letterHTML, "")}
}

// oneView is what letter.html shows.
type oneView struct {
	letterView

	Path, Title string
	Queue, ID   string
	Mailer      string
	Tries       string
	Tags        []string
	Mailing     string
	Missing     []string
	History     []tasks.Try
	Message     []description
	First       []string // of the messages of a mass task
	Monitor     string
	MayWrite    bool
	MayEML      bool
	Acts        []actView
}

// description is a line of the message's description.
type description struct {
	Name   string
	Values []string
}

// ServeHTTP implements http.Handler.
func (o *letterPage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p := o.letters
	queue, id := r.URL.Query().Get("queue"), r.URL.Query().Get("id")
	l, err := p.source.get(r.Context(), queue, id)
	switch {
	case p.source.isGone(err):
		o.page.show(w, http.StatusNotFound, p.source.title, oneView{Path: p.source.path, Title: p.source.title})
		return
	case err != nil:
		http.Error(w, "Redis does not answer: "+p.view.Text(err.Error(), maxReason), http.StatusServiceUnavailable)
		return
	}
	v := oneView{
		letterView: p.line(l), Path: p.source.path, Title: p.source.title, Queue: redact.Line(l.Queue), ID: redact.Line(l.ID),
		Mailer: redact.Line(l.Mailer()), Tries: tries(l.Tries), Mailing: redact.Line(l.Mailing), MayWrite: p.mayWrite, MayEML: p.view.Addresses, Acts: p.source.buttons(),
		Monitor: monitorPath + "queues/" + url.PathEscape(l.Queue) + "/tasks/" + url.PathEscape(l.ID),
	}
	v.Reason = p.view.Reason(l.Reason)
	for _, tag := range l.Tags {
		v.Tags = append(v.Tags, redact.Line(tag))
	}
	for _, m := range l.Missing {
		v.Missing = append(v.Missing, p.view.Text(m, maxReason))
	}
	for _, t := range l.History {
		t.Reason = p.view.Reason(t.Reason)
		v.History = append(v.History, t)
	}
	v.describe(formatter{p.view}, l)
	o.page.show(w, http.StatusOK, v.Subject, v)
}

// describe fills in what the message is.
func (v *oneView) describe(f formatter, l failedLetter) {
	if l.Messages > 0 {
		for _, one := range f.many(l.Payload) {
			if list, ok := one.value.([]json.RawMessage); ok {
				for _, m := range list {
					v.First = append(v.First, string(m))
				}
			}
		}
		return
	}
	outline, ok := wire.ReadOutline(l.Payload)
	if !ok {
		return
	}
	for _, one := range f.message(outline) {
		d := description{Name: labels[one.name]}
		switch value := one.value.(type) {
		case string:
			d.Values = []string{value}
		case []string:
			d.Values = value
		}
		if d.Name != "" {
			v.Message = append(v.Message, d)
		}
	}
}

// labels are what people call the fields that formatter.message has.
var labels = map[string]string{
	"message": "Message", "subject": "Subject", "from": "From", "to": "To", "cc": "Cc", "bcc": "Bcc", "body": "Body", "raw": "Raw message",
	"alternatives": "Alternatives", "attachments": "Attachments", "message_id": "Message-ID",
}

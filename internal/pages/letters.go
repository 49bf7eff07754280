package pages

import (
	_ "embed" // the pages
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"github.com/mailpouch/mailpouch/internal/redact"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/tasks"
)

var (
	//go:embed letters.html
	lettersHTML string
	//go:embed letters.js
	lettersJS string
)

const (
	lettersShown = 50 // on a page
	maxPages     = 40 // that can be turned; behind that a filter finds more
	groupsShown  = 12
	maxShort     = 240 // characters of a reason in a list
)

// letters is a page about messages that failed: grouped by reason, filtered, and what can be done to them.
type letters struct {
	source   letterSource
	list     *page
	view     redact.View
	mayWrite bool
	log      *zerolog.Logger
	known    func() (queues, mailers []string) // to choose from
	actTime  time.Duration                     // for which a request works on them, at most; 0 is the usual one
}

func newLetters(source letterSource, v *vitals) *letters {
	return &letters{
		source: source, list: newPage(source.path, lettersHTML, lettersJS), view: v.cfg.view(), mayWrite: v.cfg.AllowWrite, log: v.cfg.Logger, known: v.names,
		actTime: v.cfg.actTime,
	}
}

// query is what a request asks for.
type query struct {
	values url.Values // without what is not a filter
	filter tasks.Filter
	page   int // from 0
}

// filterFields are the parameters of a request that tasks.Filter knows.
var filterFields = []string{"reason", "to", "subject", "queue", "mailer", "tag", "mailing", "since", "until", "group"}

// read reads the filter of a request. The error says what is wrong with it, for a person.
func (p *letters) read(form url.Values) (query, error) {
	q := query{values: url.Values{}, filter: tasks.Filter{Masked: !p.view.Addresses}}
	var wrong error
	for _, name := range filterFields {
		value := form.Get(name)
		if strings.TrimSpace(value) == "" {
			continue
		}
		q.values.Set(name, value)
		wrong = errors.Join(wrong, q.filter.Set(name, value, time.Now()))
	}
	if f := q.filter; f.Masked && f.To != "" && !strings.Contains(f.To, "@") {
		wrong = errors.Join(wrong, &tasks.FilterError{Name: "to", Reason: "while addresses are masked, a whole address is expected, or @ and a domain"})
	}
	queues, mailers := p.known()
	for _, one := range []struct {
		name, value string
		known       []string
	}{{"queue", wire.ParseQueueName(q.filter.Queue).Queue, queues}, {"mailer", q.filter.Mailer, mailers}} {
		if one.value != "" && !slices.Contains(one.known, one.value) {
			wrong = errors.Join(wrong, &tasks.FilterError{Name: one.name, Reason: fmt.Sprintf("there is no %q (there are %s)", redact.Cut(one.value, maxAddress), strings.Join(one.known, ", "))})
		}
	}
	if s := form.Get("page"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 0 || n >= maxPages {
			wrong = errors.Join(wrong, &tasks.FilterError{Name: "page", Reason: fmt.Sprintf("a number below %d is expected; a filter finds what is behind that", maxPages)})
			n = 0
		}
		q.page = n
	}
	return q, wrong
}

// with is the address of the page with another value of a parameter.
func (p *letters) with(q query, name, value string) string {
	values := url.Values{}
	for k := range q.values {
		values.Set(k, q.values.Get(k))
	}
	if values.Set(name, value); value == "" {
		values.Del(name)
	}
	if len(values) == 0 {
		return p.source.path
	}
	return p.source.path + "?" + values.Encode()
}

// lettersView is what letters.html shows.
type lettersView struct {
	Path     string
	Title    string
	Words    letterWords
	Filter   map[string]string
	Filtered bool
	Queues   []string
	Mailers  []string
	Problems []string
	Said     string
	Total    int
	Groups   []groupView
	Rest     int // groups that are not shown
	Ungroup  string
	Letters  []letterView
	From, To int
	Newer    string
	Older    string
	MayWrite bool
	MayEML   bool
	Acts     []actView
}

type groupView struct {
	tasks.ReasonCount
	Link  string
	Share int // percent of the biggest group
}

// letterView is a line of the list.
type letterView struct {
	Key     string // queue and ID, for a form
	Link    string
	Reason  string
	Subject string
	To      []string
	About   []string // what else is known of it
	At      time.Time
	Next    time.Time
}

// actView is a button.
type actView struct{ Value, Label string }

func (s letterSource) buttons() []actView {
	list := make([]actView, 0, len(s.acts))
	for value, act := range s.acts {
		list = append(list, actView{value, act.Button})
	}
	slices.SortFunc(list, func(a, b actView) int { return strings.Compare(b.Label, a.Label) })
	return list
}

// show answers with the list.
func (p *letters) show(w http.ResponseWriter, r *http.Request) {
	q, wrong := p.read(r.URL.Query())
	v := lettersView{
		Path: p.source.path, Title: p.source.title, Words: p.source.words, Filter: map[string]string{}, Filtered: len(q.values) > 0,
		MayWrite: p.mayWrite, MayEML: p.view.Addresses, Acts: p.source.buttons(), Said: p.source.said(r.URL.Query()), Ungroup: p.with(q, "group", ""),
	}
	for _, name := range filterFields {
		v.Filter[name] = redact.Line(q.values.Get(name))
	}
	v.Queues, v.Mailers = p.known()
	code := http.StatusOK
	if wrong != nil {
		code, v.Problems = http.StatusBadRequest, strings.Split(wrong.Error(), "\n")
	} else if err := p.fill(r, q, &v); err != nil {
		code, v.Problems = http.StatusServiceUnavailable, []string{"Redis does not answer: " + p.view.Text(err.Error(), maxReason)}
	}
	p.list.show(w, code, p.source.title, v)
}

func (p *letters) fill(r *http.Request, q query, v *lettersView) error {
	before := q.page * lettersShown
	found, list, err := p.source.survey(r.Context(), q.filter, before+lettersShown)
	if err != nil {
		return err
	}
	v.Total = found.Total
	for i, g := range found.Groups {
		if i == groupsShown {
			v.Rest = len(found.Groups) - i
			break
		}
		v.Groups = append(v.Groups, groupView{g, p.with(q, "group", g.Group), max(100*g.Count/found.Groups[0].Count, 1)})
	}
	list = list[min(before, len(list)):]
	for _, l := range list {
		v.Letters = append(v.Letters, p.line(l))
	}
	v.From, v.To = before+1, before+len(list)
	if q.page > 0 {
		v.Newer = p.with(q, "page", strconv.Itoa(q.page-1))
	}
	if v.To < v.Total && q.page < maxPages-1 {
		v.Older = p.with(q, "page", strconv.Itoa(q.page+1))
	}
	return nil
}

// line is a letter in the list.
func (p *letters) line(l failedLetter) letterView {
	v := letterView{
		Key: letterKey(l.Queue, l.ID), Link: letterLink(p.source.path, l.Queue, l.ID), At: l.At, Next: l.Next,
		Reason: p.view.Text(l.Reason, maxShort), Subject: p.view.Text(l.Subject(), maxSubject), To: formatter{p.view}.recipients(l.Recipients),
	}
	switch {
	case l.Messages > 0:
		v.Subject = fmt.Sprintf("%s messages of a mass task", number(l.Messages))
	case l.Message == nil:
		v.Subject = notReadable
	}
	v.About = append(v.About, queueLabel(l.Queue), tries(l.Tries))
	for _, tag := range l.Tags {
		v.About = append(v.About, "#"+redact.Line(tag))
	}
	if l.Mailing != "" {
		v.About = append(v.About, "mailing "+redact.Line(l.Mailing))
	}
	return v
}

func tries(n int) string {
	switch n {
	case 0:
		return "never tried"
	case 1:
		return "1 try"
	}
	return strconv.Itoa(n) + " tries"
}

// queueLabel is what people call a queue of asynq's.
func queueLabel(queue string) string {
	name := wire.ParseQueueName(queue)
	if name.Mailer == "" {
		return redact.Line(name.Queue)
	}
	return redact.Line(name.Queue + " of " + name.Mailer)
}

// letterKey names a letter in a form: its queue cannot have a blank.
func letterKey(queue, id string) string { return queue + " " + id }

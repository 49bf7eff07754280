package pages

import (
	"cmp"
	"context"
	_ "embed" // the pages
	"fmt"
	"iter"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/mailpouch/mailpouch/tasks"
)

var (
	//go:embed letteracts.html
	letterActsHTML string
	//go:embed lettersgoing.html
	lettersGoingHTML string
	//go:embed lettersgoing.js
	lettersGoingJS string
)

// letterActs does what the buttons of a page say. It is reached only if the pages may change something, and then by the
// pages of this server alone: see guard and http.CrossOriginProtection.
type letterActs struct {
	letters *letters
	ask     *page
	going   *page
}

const (
	actTime    = 5 * time.Second
	actsAtOnce = 8
)

func newLetterActs(p *letters) *letterActs {
	return &letterActs{
		letters: p, ask: newPage(p.source.path, letterActsHTML, ""), going: newPage(p.source.path, lettersGoingHTML, lettersGoingJS),
	}
}

// sureView is what letteracts.html asks.
type sureView struct {
	Path, Title  string
	Question     string
	Sure, Button string
	Fields       []field
	Back         string
}

// field is a hidden field of a form.
type field struct{ Name, Value string }

// ServeHTTP implements http.Handler.
func (a *letterActs) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p := a.letters
	if err := r.ParseForm(); err != nil {
		http.Error(w, "The form cannot be read: "+err.Error(), http.StatusBadRequest)
		return
	}
	q, wrong := p.read(r.PostForm)
	if wrong != nil {
		http.Error(w, wrong.Error(), http.StatusBadRequest)
		return
	}
	chosen := r.PostForm["letter"]
	all := r.PostForm.Get("all") != ""
	if len(chosen) == 0 && !all {
		a.back(w, r, q, url.Values{"none": {"1"}})
		return
	}
	do := r.PostForm.Get("do")
	if do == "json" || do == "eml" {
		p.export(w, r, do, p.meant(r.Context(), q, chosen, all))
		return
	}
	act, ok := p.source.acts[do]
	if !ok {
		http.Error(w, "There is no such button.", http.StatusBadRequest)
		return
	}
	if (all || act.Sure != "") && r.PostForm.Get("sure") == "" {
		a.question(w, r, q, act, all)
		return
	}
	a.do(w, r, q, act, chosen, all)
}

// question asks whether that is meant.
func (a *letterActs) question(w http.ResponseWriter, r *http.Request, q query, act letterAct, all bool) {
	n := number(len(r.PostForm["letter"]))
	if all {
		n = "all"
		if total, err := strconv.Atoi(r.PostForm.Get("all")); err == nil && total > 0 {
			n += " " + number(total)
		}
	}
	v := sureView{
		Path: a.letters.source.path, Title: a.letters.source.title, Sure: act.Sure, Button: act.Button, Back: a.letters.with(q, "", ""),
		Question: fmt.Sprintf("%s %s of these messages?", act.Button, n),
	}
	if n == "1" {
		v.Question = act.Button + " this message?"
	}
	if all && len(q.values) > 0 {
		v.Sure = "These are all that fit the filter, also those that have come since the page was shown. " + v.Sure
	}
	for name, values := range r.PostForm {
		for _, value := range values {
			v.Fields = append(v.Fields, field{name, value})
		}
	}
	v.Fields = append(v.Fields, field{"sure", "yes"})
	a.ask.show(w, http.StatusOK, act.Button, v)
}

// meant yields the letters that are chosen, or all that the filter means.
func (p *letters) meant(ctx context.Context, q query, chosen []string, all bool) iter.Seq2[*tasks.DeadLetter, error] {
	if all {
		return p.source.each(ctx, q.filter)
	}
	return func(yield func(*tasks.DeadLetter, error) bool) {
		for _, key := range chosen {
			queue, id, _ := strings.Cut(key, " ")
			if !yield(&tasks.DeadLetter{Queue: queue, ID: id}, nil) {
				return
			}
		}
	}
}

// tally is what has become of letters, in this request and in those before that did the same.
type tally struct{ done, gone, failed int }

// do does it to each letter, for as long as one request may take, and says how many there were. If there are more the answer asks for the
// rest by itself, as long as somebody looks at it. So nothing goes on that nobody sees, and the pages of another worker can go on.
func (a *letterActs) do(w http.ResponseWriter, r *http.Request, q query, act letterAct, chosen []string, all bool) {
	begun, t := time.Now(), tally{done: atoi(r.PostForm.Get("done")), gone: atoi(r.PostForm.Get("gone"))}
	if before, err := time.Parse(time.RFC3339, r.PostForm.Get("before")); err == nil && (q.filter.Until.IsZero() || before.Before(q.filter.Until)) {
		q.filter.Until = before // what has failed again since does not come a second time
	}
	n, more, err := a.each(r.Context(), act, a.letters.meant(r.Context(), q, chosen, all))
	t.done, t.gone, t.failed = t.done+n.done, t.gone+n.gone, n.failed
	if err != nil {
		a.letters.log.Warn().Err(err).Int("messages", n.failed).Str("button", act.Button).Msg("pages: not done")
	}
	if more && all && n.done+n.gone > 0 {
		a.goOn(w, r, q, act, t, begun)
		return
	}
	result := url.Values{"did": {r.PostForm.Get("do")}, "n": {strconv.Itoa(t.done)}}
	if t.gone > 0 {
		result.Set("gone", strconv.Itoa(t.gone))
	}
	if t.failed > 0 {
		result.Set("failed", strconv.Itoa(t.failed))
	}
	a.back(w, r, q, result)
}

// each does it to letters, to one at least and some at the same time, until its time is up or the browser has gone. What was begun is ended in any case. more
// reports whether there are others, and the error is one of those that failed.
func (a *letterActs) each(ctx context.Context, act letterAct, meant iter.Seq2[*tasks.DeadLetter, error]) (n tally, more bool, why error) {
	var all sync.WaitGroup
	var mu sync.Mutex // guards n and why
	turns, end, begun := make(chan struct{}, actsAtOnce), time.Now().Add(cmp.Or(a.letters.actTime, actTime)), false
	for l, err := range meant {
		if err != nil {
			mu.Lock()
			n.failed, why = n.failed+1, err
			mu.Unlock()
			break
		}
		if more = ctx.Err() != nil || begun && time.Now().After(end); more {
			break
		}
		begun = true
		turns <- struct{}{}
		all.Go(func() {
			defer func() { <-turns }()
			err := act.run(context.WithoutCancel(ctx), l.Queue, l.ID)
			mu.Lock()
			defer mu.Unlock()
			switch {
			case a.letters.source.isGone(err):
				n.gone++
			case err != nil:
				n.failed, why = n.failed+1, err
			default:
				n.done++
			}
		})
	}
	all.Wait()
	return n, more, why
}

// goingView is what lettersgoing.html shows.
type goingView struct {
	Path, Button, Said string
	Done, Of           int
	Fields             []field
	Back               string
}

// goOn answers with how far it has come, and a form that does the rest. No address leads there: only who has pressed the button gets it.
func (a *letterActs) goOn(w http.ResponseWriter, r *http.Request, q query, act letterAct, t tally, begun time.Time) {
	v := goingView{Path: a.letters.source.path, Button: act.Button, Done: t.done + t.gone, Of: atoi(r.PostForm.Get("all"))}
	v.Of = max(v.Of, v.Done)
	result := url.Values{"did": {r.PostForm.Get("do")}, "n": {strconv.Itoa(t.done)}, "gone": {strconv.Itoa(t.gone)}, "failed": {strconv.Itoa(t.failed)}}
	v.Said = a.letters.source.said(result)
	for name := range q.values {
		result.Set(name, q.values.Get(name))
	}
	v.Back = v.Path + "?" + result.Encode()
	form := url.Values{
		"do": {r.PostForm.Get("do")}, "all": {strconv.Itoa(v.Of)}, "sure": {"yes"}, "done": {strconv.Itoa(t.done)}, "gone": {strconv.Itoa(t.gone)},
		"before": {cmp.Or(r.PostForm.Get("before"), begun.Add(time.Second).UTC().Format(time.RFC3339))},
	}
	for name := range q.values {
		form.Set(name, q.values.Get(name))
	}
	for _, name := range slices.Sorted(maps.Keys(form)) {
		v.Fields = append(v.Fields, field{name, form.Get(name)})
	}
	a.going.show(w, http.StatusOK, act.Button, v)
}

// atoi is a number that a form has, which may have anything.
func atoi(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		return 0
	}
	return max(n, 0)
}

// back goes to the list again, so that loading that anew does nothing again.
func (a *letterActs) back(w http.ResponseWriter, r *http.Request, q query, result url.Values) {
	for name := range q.values {
		result.Set(name, q.values.Get(name))
	}
	http.Redirect(w, r, a.letters.source.path+"?"+result.Encode(), http.StatusSeeOther) //nolint:gosec // the path is ours
}

package pages

import (
	"context"
	_ "embed" // the page
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/mailpouch/mailpouch/tasks"
)

//go:embed letteracts.html
var letterActsHTML string

// actTime is how long a request works on letters at most. What is left is said, and is done by asking again.
const actTime = 20 * time.Second

// letterActs does what the buttons of a page say. It is reached only if the pages may change something, and then by the
// pages of this server alone: see guard and http.CrossOriginProtection.
type letterActs struct {
	letters *letters
	ask     *page
}

func newLetterActs(p *letters) *letterActs {
	return &letterActs{letters: p, ask: newPage(p.source.path, letterActsHTML, "")}
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

// do does it to each letter, and says how many there were.
func (a *letterActs) do(w http.ResponseWriter, r *http.Request, q query, act letterAct, chosen []string, all bool) {
	var done, gone, failed int
	var why error
	end := time.Now().Add(actTime)
	more := false
	for l, err := range a.letters.meant(r.Context(), q, chosen, all) {
		if err != nil {
			why = err
			failed++
			break
		}
		if more = time.Now().After(end); more {
			break
		}
		switch err := act.run(r.Context(), l.Queue, l.ID); {
		case a.letters.source.isGone(err):
			gone++
		case err != nil:
			why = err
			failed++
		default:
			done++
		}
	}
	result := url.Values{"did": {r.PostForm.Get("do")}, "n": {strconv.Itoa(done)}}
	if gone > 0 {
		result.Set("gone", strconv.Itoa(gone))
	}
	if failed > 0 {
		result.Set("failed", strconv.Itoa(failed))
		a.letters.log.Warn().Err(why).Int("messages", failed).Str("button", act.Button).Msg("pages: not done")
	}
	if more {
		result.Set("more", "1")
	}
	a.back(w, r, q, result)
}

// back goes to the list again, so that loading that anew does nothing again.
func (a *letterActs) back(w http.ResponseWriter, r *http.Request, q query, result url.Values) {
	for name := range q.values {
		result.Set(name, q.values.Get(name))
	}
	http.Redirect(w, r, a.letters.source.path+"?"+result.Encode(), http.StatusSeeOther)
}

// said is what the list says of what was done before. All of it are words of ours and numbers.
func said(from url.Values, s letterSource) string {
	n := func(name string) int { n, _ := strconv.Atoi(from.Get(name)); return n }
	act, ok := s.acts[from.Get("did")]
	switch {
	case from.Get("none") != "":
		return "Nothing was done: no message was chosen."
	case !ok:
		return ""
	}
	text := number(n("n")) + " " + act.Done + "."
	if gone := n("gone"); gone > 0 {
		text += fmt.Sprintf(" %s were gone already: somebody else was faster.", number(gone))
	}
	if failed := n("failed"); failed > 0 {
		text += fmt.Sprintf(" %s failed: the worker's log says why.", number(failed))
	}
	if from.Get("more") != "" {
		text += fmt.Sprintf(" That took %d s; there are more: do it again for the rest.", int(actTime.Seconds()))
	}
	return text
}

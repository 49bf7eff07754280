package pages

import (
	"cmp"
	_ "embed" // the page
	"errors"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/mailpouch/mailpouch/internal/redact"
	"github.com/mailpouch/mailpouch/internal/wire"
	"github.com/mailpouch/mailpouch/settings"
	"github.com/mailpouch/mailpouch/tasks"
)

//go:embed pauses.html
var pausesHTML string

// pausesPage shows what is paused, and pauses and resumes if that is allowed. What is sent to it comes from this server's own
// forms: http.CrossOriginProtection, which is around all pages, refuses those of others.
type pausesPage struct {
	page   *page
	server *vitals
}

// pausesBody is what pauses.html shows.
type pausesBody struct {
	Error           string
	MayWrite        bool
	Pauses          []pauseRow
	Queues, Mailers []pauseRow // that can be paused
}

type pauseRow struct {
	tasks.PauseTarget

	Value      string // of a form's field
	At         time.Time
	By, Reason string
}

// Target names what is paused.
func (r pauseRow) Target() string { return r.String() }

func newPauseRow(t tasks.PauseTarget) pauseRow {
	value := url.Values{}
	for name, text := range map[string]string{"queue": t.Queue, "mailer": t.Mailer, "mailing": t.Mailing} {
		if text != "" {
			value.Set(name, text)
		}
	}
	return pauseRow{PauseTarget: t, Value: value.Encode()}
}

func newPauses(v *vitals) *pausesPage { return &pausesPage{newPage(pausesPath, pausesHTML, ""), v} }

func (p *pausesPage) register(mux *http.ServeMux) {
	mux.HandleFunc("GET "+pausesPath, func(w http.ResponseWriter, r *http.Request) { p.show(w, r, http.StatusOK, nil) })
	mux.HandleFunc("POST "+pausesPath, p.pause)
	mux.HandleFunc("POST "+pausesPath+"/resume", p.resume)
}

func (p *pausesPage) show(w http.ResponseWriter, r *http.Request, code int, failed error) {
	list, err := tasks.NewPauses(p.server.cfg.Redis).List(r.Context())
	queues, queuesErr := p.server.queues.get(r.Context())
	body := pausesBody{MayWrite: p.server.cfg.AllowWrite}
	if err := cmp.Or(failed, err, queuesErr); err != nil {
		body.Error = p.server.cfg.view().Text(err.Error(), maxReason)
	}
	for _, one := range list {
		row := newPauseRow(one.Target)
		row.At, row.By, row.Reason = one.At, redact.Line(one.By), p.server.cfg.view().Text(one.Reason, maxReason)
		body.Pauses = append(body.Pauses, row)
	}
	names := make([]string, 0, len(queues))
	for _, q := range queues {
		names = append(names, q.Name)
	}
	body.Queues, body.Mailers = pausable(names)
	p.page.show(w, code, "Paused", body)
}

// pausable are the queues and mailers that asynq's queues belong to. A queue of several mailers can be paused for all or for one.
func pausable(names []string) (queues, mailers []pauseRow) {
	byQueue, all := map[string][]string{}, map[string]bool{}
	for _, name := range names {
		n := wire.ParseQueueName(name)
		mailer := cmp.Or(n.Mailer, settings.DefaultMailer)
		if all[mailer] = true; !slices.Contains(byQueue[n.Queue], mailer) {
			byQueue[n.Queue] = append(byQueue[n.Queue], mailer)
		}
	}
	for _, queue := range slices.Sorted(maps.Keys(byQueue)) {
		queues = append(queues, newPauseRow(tasks.PauseTarget{Queue: queue}))
		if len(byQueue[queue]) > 1 {
			for _, mailer := range slices.Sorted(slices.Values(byQueue[queue])) {
				queues = append(queues, newPauseRow(tasks.PauseTarget{Queue: queue, Mailer: mailer}))
			}
		}
	}
	for _, mailer := range slices.Sorted(maps.Keys(all)) {
		mailers = append(mailers, newPauseRow(tasks.PauseTarget{Mailer: mailer}))
	}
	return queues, mailers
}

// target is what a form names.
func target(r *http.Request) (tasks.PauseTarget, error) {
	v, err := url.ParseQuery(r.PostFormValue("target"))
	t := tasks.PauseTarget{Queue: v.Get("queue"), Mailer: v.Get("mailer"), Mailing: v.Get("mailing")}
	if t == (tasks.PauseTarget{}) {
		t.Mailing = r.PostFormValue("mailing")
	}
	return t, cmp.Or(err, t.Validate())
}

func (p *pausesPage) pause(w http.ResponseWriter, r *http.Request) {
	t, err := target(r)
	if err == nil {
		what := tasks.Pause{Target: t, Reason: redact.Cut(redact.Line(r.PostFormValue("reason")), maxReason)}
		_, err = tasks.NewPauses(p.server.cfg.Redis).Pause(r.Context(), what)
	}
	p.done(w, r, err)
}

func (p *pausesPage) resume(w http.ResponseWriter, r *http.Request) {
	t, err := target(r)
	if err == nil {
		_, err = tasks.NewPauses(p.server.cfg.Redis).Resume(r.Context(), t) // nothing to resume: somebody else was faster
	}
	p.done(w, r, err)
}

// done shows the list anew, or what went wrong.
func (p *pausesPage) done(w http.ResponseWriter, r *http.Request, err error) {
	switch {
	case err == nil:
		http.Redirect(w, r, pausesPath, http.StatusSeeOther)
	case errors.As(err, new(*tasks.UnknownTargetError)):
		p.show(w, r, http.StatusNotFound, err)
	default:
		p.show(w, r, http.StatusBadRequest, err)
	}
}

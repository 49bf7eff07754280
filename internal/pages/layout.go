package pages

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	_ "embed" // the templates
	"encoding/base64"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/mailpouch/mailpouch/tasks"
)

// The pages look alike: layout.html has the head, the links from page to page and the foot, layout.css the looks of all.
// A page has a file NAME.html that defines the template "content", and maybe a NAME.js.
var (
	//go:embed layout.html
	layoutHTML string
	//go:embed layout.css
	layoutCSS string
)

// section is a page to which all others link.
type section struct{ Name, Path string }

var sections = []section{
	{"Overview", overviewPath}, {"Dead letters", deadPath}, {"Retries", retriesPath}, {"Paused", pausesPath}, {"Find", historyPath}, {"Monitor", monitorPath},
}

// The paths of the sections.
const (
	overviewPath = "/"
	deadPath     = "/dead"
	retriesPath  = "/retries"
	pausesPath   = "/pauses"
	historyPath  = "/history"
	monitorPath  = "/monitor/"
)

// letterLink is the address of the page of a message that has failed, on that section.
func letterLink(section, queue, id string) string {
	return section + "/letter?" + url.Values{"queue": {queue}, "id": {id}}.Encode()
}

// page is a page for people.
type page struct {
	here     string // path of the section that it belongs to
	template *template.Template
	script   string
	policy   string // Content-Security-Policy
}

// frame is what layout.html shows.
type frame struct {
	Title    string
	Here     string
	Sections []section
	Style    template.CSS
	Script   template.JS
	Body     any
}

// newPage returns a page of the section at the path here. content is its template, which gets what show is given;
// script is its own JavaScript, or "". The page runs and loads nothing else, and sends its forms to this server alone.
func newPage(here, content, script string) *page {
	t := template.Must(template.New("layout").Funcs(wording).Parse(layoutHTML))
	return &page{
		here: here, template: template.Must(t.Parse(content)), script: script,
		policy: "default-src 'none'; script-src " + sourceHash(script) + "; style-src " + sourceHash(layoutCSS) +
			"; connect-src 'self'; img-src data:; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
	}
}

// show answers with the page. A template that fails is our mistake: it is answered with 500, not with half a page.
func (p *page) show(w http.ResponseWriter, code int, title string, body any) {
	var b bytes.Buffer
	err := p.template.Execute(&b, frame{
		Title: title, Here: p.here, Sections: sections, Body: body,
		Style: template.CSS(layoutCSS), Script: template.JS(p.script), //nolint:gosec // our own
	})
	if err != nil {
		http.Error(w, "This page cannot be shown: "+err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Security-Policy", p.policy)
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(code)
	_, _ = b.WriteTo(w)
}

// sourceHash allows an element inside a page by what it says. With no text nothing is allowed.
func sourceHash(text string) string {
	if text == "" {
		return "'none'"
	}
	sum := sha256.Sum256([]byte(text))
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}

// wording is what the templates can call.
var wording = template.FuncMap{
	"number": number,
	"ago":    func(t time.Time) string { return span(time.Since(t)) + " ago" },
	"until":  func(t time.Time) string { return span(time.Until(t)) },
	"span":   span,
	"date":   func(t time.Time) string { return t.UTC().Format("2 Jan 2006, 15:04:05 UTC") },
	"stamp":  func(t time.Time) string { return t.UTC().Format(time.RFC3339) },
	"size":   size,
	"escape": url.PathEscape,
	"tone":   tone,
	"when":   when,
	"whom":   whom,
}

// number writes a number with commas: 1,284,310.
func number(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// span writes for how long something is, in its biggest unit that has two digits to show or is the smallest.
func span(d time.Duration) string {
	d = max(d, 0)
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s", int(d.Round(time.Second).Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", int(d.Hours()))
	}
	return fmt.Sprintf("%d days", int(d.Hours()/24))
}

// tone is the colour of a state.
func tone(s tasks.MessageState) string {
	switch s {
	case tasks.StateSent, tasks.StateSkipped:
		return ""
	case tasks.StateDead, tasks.StateSilent:
		return "bad"
	case tasks.StateRetry, tasks.StateOnWire:
		return "warn"
	default:
		return "idle"
	}
}

// when is when a message has ended, or is due.
func when(s tasks.Status) time.Time {
	if s.At.IsZero() {
		return s.Due
	}
	return s.At
}

// whom are the first recipients of a message.
func whom(s tasks.Status) string {
	to := strings.Join(s.To, ", ")
	if more := s.Recipients - len(s.To); more > 0 {
		to += " and " + number(more) + " more"
	}
	return cmp.Or(to, "nobody that is known")
}

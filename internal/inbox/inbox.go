// Package inbox is a web page with the mail that a catcher.Server has caught, for people
// who try out a program's mail on their own machine. It asks for no password.
package inbox

import (
	"bytes"
	"cmp"
	"crypto/rand"
	_ "embed"
	"fmt"
	"html/template"
	"mime"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mailpouch/mailpouch/internal/catcher"
	"github.com/mailpouch/mailpouch/internal/ownhost"
)

//go:embed inbox.html
var pageHTML string

// maxListed is how many mails the page lists: the newest.
const maxListed = 200

type inbox struct {
	server *catcher.Server
	page   *template.Template
}

// New returns the page of what server catches, and of what it has kept.
//
//	GET /                       the list
//	GET /list                   the list alone, for the page's script
//	GET /mail/{number}          the list and one mail
//	GET /mail/{number}/source   as it was received
//	GET /mail/{number}/part/{part}
//	GET /events                 a server-sent event for each mail that arrives
func New(server *catcher.Server) http.Handler {
	i := &inbox{server: server, page: template.Must(template.New("").Parse(pageHTML))}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { i.show(w, nil) })
	mux.HandleFunc("GET /mail/{number}", i.mail(func(w http.ResponseWriter, _ *http.Request, m catcher.Message) { i.show(w, &m) }))
	mux.HandleFunc("GET /mail/{number}/source", i.mail(source))
	mux.HandleFunc("GET /mail/{number}/part/{part}", i.mail(part))
	mux.HandleFunc("GET /list", i.list)
	mux.HandleFunc("GET /events", i.events)
	return local(mux)
}

// local answers to names of this machine alone, so that no other site can read the mail by
// a name of its own that leads here (DNS rebinding). It sets the headers of every answer.
func local(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := ownhost.Name(r)
		// An address is nobody's name: it cannot be made to mean another one.
		if _, err := netip.ParseAddr(host); err != nil && !ownhost.IsLoopback(host) {
			http.Error(w, "This page is at localhost.", http.StatusMisdirectedRequest)
			return
		}
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("X-DNS-Prefetch-Control", "off") // of the links in a mail
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

// mail finds the message that the path names.
func (i *inbox) mail(then func(http.ResponseWriter, *http.Request, catcher.Message)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		number, err := strconv.Atoi(r.PathValue("number"))
		kept := i.server.Messages()
		at := slices.IndexFunc(kept, func(m catcher.Message) bool { return m.Number == number })
		if err != nil || at < 0 {
			http.Error(w, "There is no such mail, or it is so old that it was dropped.", http.StatusNotFound)
			return
		}
		then(w, r, kept[at])
	}
}

// view is what inbox.html shows.
type view struct {
	Nonce    string
	Accepted int // since the start
	List     []line
	Mail     *mailView // nil: the list alone
}

// line is one mail in the list.
type line struct {
	Number            int
	Time              time.Time
	From, To, Subject string
	Open              bool // it is the one that is shown
}

// mailView is one mail in full.
type mailView struct {
	line
	Envelope catcher.Message
	Fields   catcher.Header // those that a mail program shows
	All      catcher.Header
	Texts    []partView
	Files    []partView
}

// Recipients are those of the envelope: blind copies are among them.
func (l *mailView) Recipients() string { return strings.Join(l.Envelope.To, ", ") }

// partView is a part of a mail.
type partView struct {
	catcher.Part
	Index int
}

func (p partView) HTML() bool   { return p.MediaType == "text/html" }
func (p partView) Body() string { return string(p.Content) }
func (p partView) Name() string { return cmp.Or(p.Filename, "unnamed") }
func (p partView) Size() string {
	if n := len(p.Content); n >= 1000 {
		return fmt.Sprintf("%d kB", (n+500)/1000)
	}
	return fmt.Sprintf("%d bytes", len(p.Content))
}

func (i *inbox) show(w http.ResponseWriter, m *catcher.Message) {
	open := 0
	v := view{Nonce: rand.Text()}
	if m != nil {
		v.Mail, open = newMailView(*m), m.Number
	}
	v.Accepted, v.List = i.server.Stats().Accepted, i.lines(open)
	w.Header().Set("Content-Security-Policy", fmt.Sprintf("default-src 'none'; style-src 'nonce-%[1]s'; script-src 'nonce-%[1]s'; "+
		"connect-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'", v.Nonce))
	i.write(w, "page", v)
}

func (i *inbox) list(w http.ResponseWriter, r *http.Request) {
	open, _ := strconv.Atoi(r.URL.Query().Get("open"))
	i.write(w, "list", view{List: i.lines(open)})
}

// lines are the newest mails, the one that is open marked.
func (i *inbox) lines(open int) []line {
	kept := i.server.Messages()
	slices.Reverse(kept)
	kept = kept[:min(len(kept), maxListed)]
	lines := make([]line, len(kept))
	for i, m := range kept {
		lines[i] = newLine(m, catcher.DecodeHeader(m.Raw))
		lines[i].Open = m.Number == open
	}
	return lines
}

// write sends a template's text whole or not at all.
func (i *inbox) write(w http.ResponseWriter, name string, v view) {
	var out bytes.Buffer
	if err := i.page.ExecuteTemplate(&out, name, v); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = out.WriteTo(w)
}

func newLine(m catcher.Message, h catcher.Header) line {
	return line{
		Number: m.Number, Time: m.Time, Subject: cmp.Or(h.Get("Subject"), "(no subject)"),
		From: cmp.Or(h.Get("From"), m.From), To: cmp.Or(h.Get("To"), strings.Join(m.To, ", ")),
	}
}

func newMailView(m catcher.Message) *mailView {
	decoded := catcher.Decode(m.Raw)
	l := &mailView{line: newLine(m, decoded.Header), Envelope: m, All: decoded.Header}
	for _, name := range []string{"From", "To", "Cc", "Reply-To", "Date"} {
		if value := decoded.Header.Get(name); value != "" {
			l.Fields = append(l.Fields, catcher.Field{Name: name, Value: value})
		}
	}
	for i, p := range decoded.Parts {
		if p.Text {
			l.Texts = append(l.Texts, partView{p, i})
		} else {
			l.Files = append(l.Files, partView{p, i})
		}
	}
	return l
}

func source(w http.ResponseWriter, _ *http.Request, m catcher.Message) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write(m.Raw)
}

// part is one part by itself: HTML for the page's frame, anything else to be saved.
func part(w http.ResponseWriter, r *http.Request, m catcher.Message) {
	parts := catcher.Decode(m.Raw).Parts
	at, err := strconv.Atoi(r.PathValue("part"))
	if err != nil || at < 0 || at >= len(parts) {
		http.NotFound(w, r)
		return
	}
	p := partView{parts[at], at}
	if p.Text && p.HTML() {
		showHTML(w, p)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": p.Name()}))
	_, _ = w.Write(p.Content)
}

// showHTML shows the HTML of a mail, which anybody may have written. It runs no script,
// loads nothing, makes the browser connect to nobody and cannot reach the page around it.
// Its links open in a new tab.
func showHTML(w http.ResponseWriter, p partView) {
	content, err := harmlessHTML(p.Content)
	if err != nil {
		http.Error(w, "This HTML cannot be read, and so is not shown ("+err.Error()+"). The mail's source has it.", http.StatusUnprocessableEntity)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; img-src data:; font-src data:; style-src 'unsafe-inline'; "+
		"base-uri 'none'; form-action 'none'; frame-ancestors 'self'; sandbox allow-popups allow-popups-to-escape-sandbox")
	_, _ = w.Write([]byte(`<!DOCTYPE html><base target="_blank">`))
	_, _ = w.Write(content)
}

// events sends the page an event for each mail that arrives. It ends with the request, or
// when the mail server is closed.
func (i *inbox) events(w http.ResponseWriter, r *http.Request) {
	control := http.NewResponseController(w)
	_ = control.SetWriteDeadline(time.Time{}) // a server that has none says so, and needs none
	w.Header().Set("Content-Type", "text/event-stream")
	accepted := i.server.Stats().Accepted
	for {
		if _, err := fmt.Fprintf(w, "data: %d\n\n", accepted); err != nil {
			return
		}
		if err := control.Flush(); err != nil {
			return
		}
		if err := i.server.Wait(r.Context(), accepted+1); err != nil {
			return
		}
		accepted = i.server.Stats().Accepted
	}
}

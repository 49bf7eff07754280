// Package inbox is a web page with the mail that a catcher.Server has caught, for people
// who try out a program's mail on their own machine, and an API for tests. It asks for no password.
package inbox

import (
	_ "embed"
	"fmt"
	"html/template"
	"mime"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mailpouch/mailpouch/internal/catcher"
	"github.com/mailpouch/mailpouch/internal/ownhost"
)

//go:embed inbox.html
var pageHTML string

type inbox struct {
	server *catcher.Server
	page   *template.Template
	names  []string // of this machine, beside localhost
}

// New returns the page of what server catches, and of what it has kept. It answers under localhost, IP addresses, and these names,
// in lower case.
//
//	GET /                       the list
//	GET /list                   the list alone, for the page's script
//	GET /mail/{number}          the list and one mail
//	GET /mail/{number}/source   as it was received
//	GET /mail/{number}/part/{part}
//	POST /delete                one mail (number) or all
//	GET /events                 a server-sent event for each mail that arrives, and each deletion
//	    /api/messages           the same as JSON: see api.go
//
// The list, a mail and a deletion of all have a parameter q, a search (see search.go). A part of HTML shows pictures
// from other servers with remote=1.
func New(server *catcher.Server, names ...string) http.Handler {
	i := &inbox{server: server, page: template.Must(template.New("").Parse(pageHTML)), names: names}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) { i.show(w, r, nil) })
	mux.HandleFunc("GET /mail/{number}", i.mail(func(w http.ResponseWriter, r *http.Request, m catcher.Message) { i.show(w, r, &m) }))
	mux.HandleFunc("GET /mail/{number}/source", i.mail(source))
	mux.HandleFunc("GET /mail/{number}/part/{part}", i.mail(part))
	mux.HandleFunc("POST /delete", i.remove)
	mux.HandleFunc("GET /list", i.list)
	mux.HandleFunc("GET /events", i.events)
	i.addAPI(mux)
	// Another site's form or script may delete nothing. Programs that are no browsers name no site.
	return i.local(http.NewCrossOriginProtection().Handler(mux))
}

// local answers to names of this machine alone, so that no other site can read the mail by
// a name of its own that leads here (DNS rebinding). It sets the headers of every answer.
func (i *inbox) local(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host := ownhost.Name(r)
		// An address is nobody's name: it cannot be made to mean another one.
		if _, err := netip.ParseAddr(host); err != nil && !ownhost.IsLoopback(host) && !slices.Contains(i.names, host) {
			http.Error(w, "This page is at localhost, or at the names that --http-host gives it.", http.StatusMisdirectedRequest)
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
			http.Error(w, "There is no such mail, or it was deleted, or it is so old that it was dropped.", http.StatusNotFound)
			return
		}
		then(w, r, kept[at])
	}
}

// remove deletes one mail, or all that a search finds, and shows what is left.
func (i *inbox) remove(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
	text := r.FormValue("q")
	match := parseSearch(text).matches
	if number := r.FormValue("number"); number != "" {
		n, err := strconv.Atoi(number)
		if err != nil {
			http.Error(w, "number: a whole number is expected", http.StatusBadRequest)
			return
		}
		match = func(m catcher.Message) bool { return m.Number == n }
	}
	i.server.Delete(match)
	http.Redirect(w, r, "/"+queryString(text), http.StatusSeeOther)
}

// queryString is the end of a URL with this search.
func queryString(search string) string {
	if search == "" {
		return ""
	}
	return "?" + url.Values{"q": {search}}.Encode()
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
	p := partView{Part: parts[at], Index: at}
	if p.Text && p.HTML() {
		showHTML(w, p, parts, r.FormValue("remote") != "")
		return
	}
	save(w, p.Part, p.Name())
}

// save lets a browser save a part, and never show it.
func save(w http.ResponseWriter, p catcher.Part, name string) {
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": name}))
	_, _ = w.Write(p.Content)
}

// showHTML shows the HTML of a mail, which anybody may have written, with the pictures that the mail has. It runs no script,
// cannot reach the page around it, and makes the browser connect to nobody, or, where it is asked for, load
// pictures from other servers. Its links open in a new tab.
func showHTML(w http.ResponseWriter, p partView, parts []catcher.Part, remote bool) {
	content, err := harmlessHTML(p.Content, parts, remote)
	if err != nil {
		http.Error(w, "This HTML cannot be read, and so is not shown ("+err.Error()+"). The mail's source has it.", http.StatusUnprocessableEntity)
		return
	}
	pictures := "data:"
	if remote {
		pictures += " http: https:"
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; img-src "+pictures+"; font-src data:; style-src 'unsafe-inline'; "+
		"base-uri 'none'; form-action 'none'; frame-ancestors 'self'; sandbox allow-popups allow-popups-to-escape-sandbox")
	_, _ = w.Write([]byte(`<!DOCTYPE html><base target="_blank">`))
	_, _ = w.Write(content)
}

// events sends the page an event for each change. It ends with the request, or
// when the mail server is closed.
func (i *inbox) events(w http.ResponseWriter, r *http.Request) {
	control := http.NewResponseController(w)
	_ = control.SetWriteDeadline(time.Time{}) // a server that has none says so, and needs none
	w.Header().Set("Content-Type", "text/event-stream")
	changes := i.server.Changes()
	for {
		if _, err := fmt.Fprintf(w, "data: %d\n\n", changes); err != nil {
			return
		}
		if err := control.Flush(); err != nil {
			return
		}
		var err error
		if changes, err = i.server.WaitChange(r.Context(), changes); err != nil {
			return
		}
	}
}

// filename is what an attachment without a name is called.
func filename(p catcher.Part) string {
	if name := strings.TrimSpace(p.Filename); name != "" {
		return name
	}
	return "unnamed"
}

package inbox

import (
	_ "embed"
	"html/template"
	"net/http"
	"net/netip"
	"slices"

	"github.com/mailpouch/mailpouch/internal/catcher"
	"github.com/mailpouch/mailpouch/internal/ownhost"
)

//go:embed inbox.html
var pageHTML string

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

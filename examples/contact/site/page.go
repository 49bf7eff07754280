package site

import (
	"bytes"
	"crypto/rand"
	_ "embed"
	"net/http"
)

//go:embed page.html
var pageHTML string

// page is what page.html shows.
type page struct {
	Title  string
	Entry  entry
	Faults faults
	Away   bool   // the queue takes nothing at the moment
	Nonce  string // allows the page's own style sheet
}

// show writes the page whole or not at all.
func (s *site) show(w http.ResponseWriter, status int, name string, p page) {
	p.Nonce = rand.Text()
	var out bytes.Buffer
	if err := s.pages.ExecuteTemplate(&out, name, p); err != nil {
		s.log.Error("contact: page", "err", err)
		http.Error(w, http.StatusText(http.StatusInternalServerError), http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'nonce-"+p.Nonce+"'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	w.WriteHeader(status)
	_, _ = out.WriteTo(w)
}

// secure sets the headers of every response. show allows its page a little more.
func secure(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("Cache-Control", "no-store") // a page may hold what somebody entered
		next.ServeHTTP(w, r)
	})
}

// Package site is a contact form on net/http: the web application of Django's email
// documentation, with a queue behind it.
//
//	GET  /contact/         the form
//	POST /contact/         hands over two mails and redirects to the next page
//	GET  /contact/thanks/
//	GET  /healthz          for containers: the process serves requests
//
// entry.go is what a visitor may enter, mails.go what becomes of it, page.go and
// page.html what the visitor sees.
package site

import (
	"context"
	"html/template"
	"log/slog"
	"net/http"
	"time"

	"github.com/mailpouch/mailpouch/mailer"
	"github.com/mailpouch/mailpouch/settings"
)

// patience is how long a visitor waits for the queue before the page says that it is away.
const patience = 5 * time.Second

// maxBody is more than the longest entry needs, in bytes, with every character encoded.
const maxBody = 256 << 10

const formTitle = "Contact us"

type site struct {
	mail  *mailer.Mailer
	cfg   settings.Message
	log   *slog.Logger
	pages *template.Template
}

// New returns the site. cfg says who the admins are and how mail to them looks.
func New(mail *mailer.Mailer, cfg settings.Message, log *slog.Logger) http.Handler {
	s := &site{mail: mail, cfg: cfg, log: log, pages: template.Must(template.New("").Parse(pageHTML))}
	mux := http.NewServeMux()
	mux.Handle("GET /{$}", http.RedirectHandler("/contact/", http.StatusSeeOther))
	mux.HandleFunc("GET /contact/{$}", s.form)
	mux.HandleFunc("POST /contact/{$}", s.submit)
	mux.HandleFunc("GET /contact/thanks/{$}", s.thanks)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok\n")) })
	// A form on another site cannot post here in a visitor's name.
	return secure(http.NewCrossOriginProtection().Handler(mux))
}

func (s *site) form(w http.ResponseWriter, _ *http.Request) {
	s.show(w, http.StatusOK, "form", page{Title: formTitle})
}

func (s *site) thanks(w http.ResponseWriter, _ *http.Request) {
	s.show(w, http.StatusOK, "thanks", page{Title: "Thank you"})
}

// submit is the whole of it: read, check, hand over, redirect.
func (s *site) submit(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	entry, err := readEntry(r)
	if err != nil {
		http.Error(w, "The form cannot be read.", http.StatusBadRequest)
		return
	}
	mails := s.mails(entry)
	if isInjection(mails) {
		http.Error(w, "Invalid header found.", http.StatusBadRequest)
		return
	}
	if faults := entry.check(); len(faults) > 0 {
		s.show(w, http.StatusUnprocessableEntity, "form", page{Title: formTitle, Entry: entry, Faults: faults})
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), patience)
	defer cancel()
	_, err = s.mail.Send(ctx, mails...)
	if err := mailer.ErrorAt(err, toAdmins); err != nil {
		s.log.Error("contact: hand over", "err", err)
		w.Header().Set("Retry-After", "60")
		s.show(w, http.StatusServiceUnavailable, "form", page{Title: formTitle, Entry: entry, Away: true})
		return
	}
	if err := mailer.ErrorAt(err, toVisitor); err != nil {
		s.log.Warn("contact: hand over the confirmation", "err", err) // we have the message: that is what counts
	}
	http.Redirect(w, r, "/contact/thanks/", http.StatusSeeOther)
}

// Command minimal is the shortest program that leaves its mail to a worker: it hands over what
// comes to POST /contact. Its settings are those of the environment, REDIS_URL above all.
package main

import (
	"context"
	"log"
	"net/http"

	"github.com/mailpouch/mailpouch"
	"github.com/mailpouch/mailpouch/mailer"
)

func main() {
	app, err := mailpouch.Open(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = app.Close() }()
	http.HandleFunc("POST /contact", contact(app.Mailer))
	log.Print(http.ListenAndServe("127.0.0.1:8000", nil)) //nolint:gosec // a program of a few lines
}

func contact(mail *mailer.Mailer) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		_, err := mail.SendMail(r.Context(), r.FormValue("subject"), r.FormValue("message"), "", []string{"office@example.com"}, nil)
		switch {
		case mailer.IsBadInput(err): // somebody tried "Hello\nBcc: everybody@example.com"
			http.Error(w, err.Error(), http.StatusBadRequest)
		case err != nil:
			http.Error(w, "please try again later", http.StatusServiceUnavailable)
		default:
			http.Redirect(w, r, "/contact/thanks/", http.StatusSeeOther)
		}
	}
}

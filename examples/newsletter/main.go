// Command newsletter sends news to the addresses on standard input, one a line, and serves the page where a recipient leaves
// the list with one click. Its argument is the URL under which the world reaches it:
//
//	newsletter https://news.example.com < addresses.txt
//
// LIST_KEY signs the links. The other settings are those of the environment, REDIS_URL above all.
package main

import (
	"bufio"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/url"
	"os"
	"sync"

	"github.com/mailpouch/mailpouch"
	"github.com/mailpouch/mailpouch/mailer"
)

func main() {
	if len(os.Args) != 2 || os.Getenv("LIST_KEY") == "" {
		log.Fatal("usage: LIST_KEY=... newsletter https://news.example.com < addresses.txt")
	}
	app, err := mailpouch.Open(context.Background())
	if err != nil {
		log.Fatal(err)
	}
	defer func() { _ = app.Close() }()
	l := &list{url: os.Args[1], key: []byte(os.Getenv("LIST_KEY"))}
	mail := app.Mailer.With(mailer.Options{Queue: "bulk", Mailing: "news-2026-11", Tags: []string{"newsletter"}})
	n, err := l.send(context.Background(), mail, os.Stdin)
	log.Printf("%d messages wait for a worker, error: %v", n, err)
	log.Print(http.ListenAndServe("127.0.0.1:8000", l.pages())) //nolint:gosec // a program of a few lines
}

// list is a mailing list. A real one keeps who has left in its database.
type list struct {
	url  string
	key  []byte
	mu   sync.Mutex
	left map[string]bool
}

// send hands over a message for each address, all in one call: they share tasks then, and connections.
func (l *list) send(ctx context.Context, mail *mailer.Mailer, addresses io.Reader) (int, error) {
	var messages []*mailer.EmailMessage
	for lines := bufio.NewScanner(addresses); lines.Scan(); {
		if to := lines.Text(); !l.hasLeft(to) {
			messages = append(messages, &mailer.EmailMessage{
				Subject: "News", Body: "There is something new.\n\nNo more of this: " + l.link(to) + "\n", FromEmail: "News <news@example.com>", To: []string{to},
				ListUnsubscribe: mailer.ListUnsubscribe{URL: l.link(to), OneClick: true},
				VERP:            "bounces@example.com",
			})
		}
	}
	return mail.Send(ctx, messages...)
}

// link is the page where a recipient leaves the list. Nobody else can make it.
func (l *list) link(to string) string {
	return l.url + "/leave?" + url.Values{"who": {to}, "sign": {l.sign(to)}}.Encode()
}

func (l *list) sign(to string) string {
	mac := hmac.New(sha256.New, l.key)
	_, _ = io.WriteString(mac, to)
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

func (l *list) hasLeft(who string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.left[who]
}

// pages are a question for people, who follow the link in the text, as filters do too; and the POST of it, which a mail program
// makes by itself.
func (l *list) pages() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /leave", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `<form method="post"><button>Leave the list</button></form>`)
	})
	mux.HandleFunc("POST /leave", func(w http.ResponseWriter, r *http.Request) {
		who := r.URL.Query().Get("who")
		if !hmac.Equal([]byte(l.sign(who)), []byte(r.URL.Query().Get("sign"))) {
			http.Error(w, "this is no link of ours", http.StatusForbidden)
			return
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.left == nil {
			l.left = map[string]bool{}
		}
		l.left[who] = true
		_, _ = fmt.Fprintln(w, "You will hear no more of us.")
	})
	return mux
}

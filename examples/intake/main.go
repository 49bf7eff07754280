// Command intake is the other side of Mailpouch's events: it gets webhooks, verifies them, and prints what has become of each message. Beside
// it are programs in Python and Node.js that hand mail in over SMTP and HTTP, and that verify webhooks too.
//
//	EMAIL_WEBHOOK_SECRET=whsec_... go run ./examples/intake 127.0.0.1:8030
//	REDIS_URL=redis://127.0.0.1:6379/0 go run ./examples/intake read        (without webhooks)
package main

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/mailpouch/mailpouch/tasks"
)

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, args []string) error {
	switch {
	case len(args) != 1:
		return errors.New("usage: intake host:port, or intake read")
	case args[0] == "read":
		client, err := tasks.Connect(os.Getenv("REDIS_URL"))
		if err != nil {
			return err
		}
		defer func() { _ = client.Close() }()
		return read(ctx, client)
	}
	h, err := receive(os.Getenv("EMAIL_WEBHOOK_SECRET"), func(e event) {
		fmt.Println(e.Type, e.Data.EmailID, strings.Join(e.Data.To, ", "), e.Data.Reply)
	})
	if err != nil {
		return err
	}
	return http.ListenAndServe(args[0], h) //nolint:gosec // a program of a few lines
}

// event is what a webhook says.
type event struct {
	Type      string    `json:"type"` // email.queued, email.sent, email.delayed, email.failed, email.cancelled
	Timestamp time.Time `json:"timestamp"`
	Data      struct {
		EmailID string   `json:"email_id"`
		To      []string `json:"to"`
		Tags    []string `json:"tags"`
		Reply   string   `json:"reply"`
		Tries   int      `json:"tries"`
	} `json:"data"`
}

// receive answers webhooks. What may come twice is done once by its ID.
func receive(secret string, do func(event)) (http.Handler, error) {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, "whsec_"))
	if err != nil || len(key) == 0 {
		return nil, errors.New("EMAIL_WEBHOOK_SECRET is no secret of a webhook")
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 1<<20))
		if err != nil {
			return
		}
		if err := verify(key, r.Header, body, time.Now()); err != nil {
			http.Error(w, err.Error(), http.StatusUnauthorized)
			return
		}
		var e event
		if err := json.Unmarshal(body, &e); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		do(e) // a program with a database notes webhook-id there, in the same transaction
		w.WriteHeader(http.StatusNoContent)
	}), nil
}

// verify reports whether a webhook is Mailpouch's, and not an old one that somebody sends again.
func verify(key []byte, h http.Header, body []byte, now time.Time) error {
	id, stamp := h.Get("webhook-id"), h.Get("webhook-timestamp")
	seconds, err := strconv.ParseInt(stamp, 10, 64)
	if err != nil || now.Sub(time.Unix(seconds, 0)).Abs() > 5*time.Minute {
		return errors.New("the webhook is too old, or has no time")
	}
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%s.%s", id, stamp, body)
	for signature := range strings.FieldsSeq(h.Get("webhook-signature")) { // several while a secret is changed
		got, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(signature, "v1,"))
		if err == nil && hmac.Equal(got, mac.Sum(nil)) {
			return nil
		}
	}
	return errors.New("the signature is wrong")
}

package interop

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/pb33f/libopenapi"
	validator "github.com/pb33f/libopenapi-validator"
	"github.com/resend/resend-go/v3"

	"github.com/mailpouch/mailpouch/intake"
	"github.com/mailpouch/mailpouch/intake/httpapi"
	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
	"github.com/mailpouch/mailpouch/tasks"
)

// documented checks each request, and its answer, against the OpenAPI document of the API.
type documented struct {
	t         *testing.T
	validator validator.Validator
	mu        sync.Mutex
	unlike    bool // what is asked is not as the document says
}

func (d *documented) RoundTrip(r *http.Request) (*http.Response, error) {
	var body []byte
	if r.Body != nil {
		body, _ = io.ReadAll(r.Body)
	}
	again := func() *http.Request {
		c := r.Clone(r.Context())
		c.Body = io.NopCloser(bytes.NewReader(body))
		return c
	}
	resp, err := http.DefaultTransport.RoundTrip(again())
	if err != nil {
		return nil, err
	}
	answer, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	resp.Body = io.NopCloser(bytes.NewReader(answer))
	if ok, wrong := d.validator.ValidateHttpRequestSync(again()); ok == d.unlike {
		d.t.Errorf("%s %s is as documented: %v, with %s: %+v", r.Method, r.URL.Path, ok, body, wrong)
	}
	if ok, wrong := d.validator.ValidateHttpResponse(again(), resp); !ok {
		for _, w := range wrong {
			d.t.Errorf("%s %s: the answer %s is not as documented: %v", r.Method, r.URL.Path, answer, w)
		}
	}
	resp.Body = io.NopCloser(bytes.NewReader(answer))
	return resp, nil
}

// TestResend hands mail over with Resend's SDK for Go, unchanged but for the base URL. Its requests, and what it is answered, are as the API's
// document says, which itself is as OpenAPI says.
func TestResend(t *testing.T) {
	server := redistest.Start(t, redistest.Options{})
	redisClient, err := tasks.Connect(server.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = redisClient.Close() }()
	key, secret := intake.NewKey("shop")
	line, err := json.Marshal(key)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := intake.ReadKeys(bytes.NewReader(line))
	if err != nil {
		t.Fatal(err)
	}
	queue := tasks.NewQueue(redisClient, tasks.QueueConfig{})
	api := httptest.NewServer(httpapi.New(intake.New(redisClient, queue, keys), httpapi.Config{}))
	defer api.Close()
	check := &documented{t: t, validator: openAPIOf(t, api.URL)}
	client := resend.NewCustomClient(&http.Client{Transport: check}, secret)
	if client.BaseURL, err = url.Parse(api.URL + "/"); err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	email := func() *resend.SendEmailRequest {
		return &resend.SendEmailRequest{
			From: "Shop <shop@example.com>", To: []string{"ann@example.net", "bob@example.net"}, Subject: "Hello", Html: "<b>It works.</b>", Text: "It works.",
			Cc: []string{"carl@example.net"}, Bcc: []string{"dora@example.net"}, ReplyTo: "help@example.com", Headers: map[string]string{"X-Ref": "7"},
			Tags:        []resend.Tag{{Name: "category", Value: "confirm_email"}},
			Attachments: []*resend.Attachment{{Filename: "a.bin", Content: []byte{0, 1, 255}, ContentType: "application/x-a", ContentId: "logo"}},
		}
	}

	sent, err := client.Emails.SendWithContext(ctx, email())
	if err != nil {
		t.Fatal(err)
	}
	_, m, err := queue.Message(ctx, sent.Id)
	if err != nil || m == nil {
		t.Fatalf("%v, %v", m, err)
	}
	if m.FromEmail != "Shop <shop@example.com>" || !slices.Equal(m.To, email().To) || !slices.Equal(m.Cc, email().Cc) || !slices.Equal(m.Bcc, email().Bcc) ||
		!slices.Equal(m.ReplyTo, []string{"help@example.com"}) || m.Headers["X-Ref"] != "7" || m.Body != "It works." || m.Alternatives[0].Content != "<b>It works.</b>" {
		t.Errorf("%+v", m)
	}
	if a := m.Attachments; len(a) != 1 || a[0].Filename != "a.bin" || !bytes.Equal(a[0].Content, []byte{0, 1, 255}) || a[0].Mimetype != "application/x-a" || a[0].ContentID != "logo" {
		t.Errorf("%+v", a)
	}
	got, err := client.Emails.GetWithContext(ctx, sent.Id)
	if err != nil || got.LastEvent != "queued" || got.Id != sent.Id || got.Object != "email" || got.Subject != "Hello" || !slices.Equal(got.To, email().To) {
		t.Errorf("%+v, %v", got, err)
	}

	// The same key is the same email.
	keyed := &resend.SendEmailOptions{IdempotencyKey: "welcome/7"}
	first, err := client.Emails.SendWithOptions(ctx, email(), keyed)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := client.Emails.SendWithOptions(ctx, email(), keyed); err != nil || again.Id != first.Id {
		t.Errorf("%+v, %v, want %s", again, err, first.Id)
	}
	other := email()
	other.Subject = "Other"
	fails(t, "another email with the key", "Idempotency-Key was used", func() error { _, err := client.Emails.SendWithOptions(ctx, other, keyed); return err })

	// Another time, and none.
	later := email()
	later.ScheduledAt = "in 1 hour"
	scheduled, err := client.Emails.SendWithContext(ctx, later)
	if err != nil {
		t.Fatal(err)
	}
	updated, err := client.Emails.UpdateWithContext(ctx, &resend.UpdateEmailRequest{Id: scheduled.Id, ScheduledAt: "2099-12-24T18:00:00Z"})
	if err != nil || updated.Id != scheduled.Id || updated.Object != "email" {
		t.Errorf("%+v, %v", updated, err)
	}
	if got, err := client.Emails.GetWithContext(ctx, scheduled.Id); err != nil || got.LastEvent != "scheduled" {
		t.Errorf("%+v, %v", got, err)
	}
	if cancelled, err := client.Emails.CancelWithContext(ctx, scheduled.Id); err != nil || cancelled.Id != scheduled.Id || cancelled.Object != "email" {
		t.Errorf("%+v, %v", cancelled, err)
	}
	fails(t, "cancelled twice", "no such email", func() error { _, err := client.Emails.CancelWithContext(ctx, scheduled.Id); return err })

	testBatches(ctx, t, client)

	// What is refused by name.
	check.unlike = true
	wrong := email()
	wrong.Template = &resend.EmailTemplate{Id: "welcome"}
	fails(t, "a template", "template: ", func() error { _, err := client.Emails.SendWithContext(ctx, wrong); return err })
	wrong = email()
	wrong.Attachments = []*resend.Attachment{{Filename: "a", Path: "https://example.com/a"}}
	fails(t, "a file elsewhere", "attachments[0].path: ", func() error { _, err := client.Emails.SendWithContext(ctx, wrong); return err })
}

func testBatches(ctx context.Context, t *testing.T, client *resend.Client) {
	t.Helper()
	batch := []*resend.SendEmailRequest{
		{From: "shop@example.com", To: []string{"ann@example.net"}, Subject: "1", Text: "x"}, {From: "shop@example.com", To: []string{"bob@example.net"}, Subject: "2", Text: "x"},
	}
	all, err := client.Batch.SendWithContext(ctx, batch)
	if err != nil || len(all.Data) != 2 || all.Data[0].Id == all.Data[1].Id || len(all.Errors) != 0 {
		t.Errorf("%+v, %v", all, err)
	}
	keyed := &resend.BatchSendEmailOptions{IdempotencyKey: "batch/7"}
	first, err := client.Batch.SendWithOptions(ctx, batch, keyed)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := client.Batch.SendWithOptions(ctx, batch, keyed); err != nil || !slices.Equal(again.Data, first.Data) {
		t.Errorf("%+v, %v, want %+v", again, err, first)
	}
	fails(t, "another batch with the key", "Idempotency-Key was used", func() error { _, err := client.Batch.SendWithOptions(ctx, batch[:1], keyed); return err })
	batch[1].To = []string{"nobody@"}
	fails(t, "a strict batch", "[1].to[0]: ", func() error {
		_, err := client.Batch.SendWithOptions(ctx, batch, &resend.BatchSendEmailOptions{BatchValidation: resend.BatchValidationStrict})
		return err
	})
	some, err := client.Batch.SendWithOptions(ctx, batch, &resend.BatchSendEmailOptions{BatchValidation: resend.BatchValidationPermissive})
	if err != nil || len(some.Data) != 1 || len(some.Errors) != 1 || some.Errors[0].Index != 1 || !strings.Contains(some.Errors[0].Message, "to[0]") {
		t.Errorf("%+v, %v", some, err)
	}
}

// fails calls what has to return an error with that text.
func fails(t *testing.T, what, text string, call func() error) {
	t.Helper()
	if err := call(); err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("%s: %v, want %q", what, err, text)
	}
}

// openAPIOf reads the document of an API, which has to be as OpenAPI 3.1 says.
func openAPIOf(t *testing.T, at string) validator.Validator {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, at+"/openapi.json", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil {
		t.Fatal(err)
	}
	document, err := libopenapi.NewDocument(data)
	if err != nil {
		t.Fatal(err)
	}
	v, wrong := validator.NewValidator(document)
	if len(wrong) > 0 {
		t.Fatal(wrong)
	}
	if ok, wrong := v.ValidateDocument(); !ok {
		for _, w := range wrong {
			t.Error(w)
		}
	}
	return v
}

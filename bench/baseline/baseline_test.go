package baseline_test

import (
	"bytes"
	"io"
	"mime"
	"mime/multipart"
	"net/mail"
	"reflect"
	"strings"
	"testing"

	"github.com/mailpouch/mailpouch/bench/baseline"
)

func TestMail_Task(t *testing.T) {
	want := baseline.Mail{From: "a@example.com", To: "b@example.com", Subject: "Hello", Body: "text\n", Attachment: []byte{0, 255}}
	task, err := want.Task()
	if err != nil {
		t.Fatal(err)
	}
	got, err := baseline.Read(task)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestMail_Render(t *testing.T) {
	m := baseline.Mail{From: "a@example.com", To: "b@example.com", Subject: "Hello", Body: "first\nsecond\n"}
	got, err := mail.ReadMessage(bytes.NewReader(m.Render()))
	if err != nil {
		t.Fatal(err)
	}
	if body, _ := io.ReadAll(got.Body); string(body) != "first\r\nsecond\r\n" || got.Header.Get("Subject") != "Hello" {
		t.Errorf("got %v\n%s", got.Header, body)
	}
}

func TestMail_Render_attachment(t *testing.T) {
	m := baseline.Mail{From: "a@example.com", To: "b@example.com", Body: "text", Attachment: bytes.Repeat([]byte("data"), 100)}
	got, err := mail.ReadMessage(bytes.NewReader(m.Render()))
	if err != nil {
		t.Fatal(err)
	}
	_, params, err := mime.ParseMediaType(got.Header.Get("Content-Type"))
	if err != nil {
		t.Fatal(err)
	}
	parts := multipart.NewReader(got.Body, params["boundary"])
	var kinds []string
	for {
		p, err := parts.NextPart()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		kinds = append(kinds, p.Header.Get("Content-Type"))
	}
	if strings.Join(kinds, " ") != "text/plain; charset=utf-8 application/octet-stream" {
		t.Errorf("parts %q", kinds)
	}
}

func TestBody(t *testing.T) {
	if n := len(baseline.Body(7)); n < 1900 || n > 2100 {
		t.Errorf("a mail has %d bytes, want about 2,000", n)
	}
	if n := len(baseline.HTML(7)); n < 19_000 || n > 21_000 {
		t.Errorf("a newsletter has %d bytes, want about 20,000", n)
	}
	if baseline.Body(1) == baseline.Body(2) {
		t.Error("two mails have the same text")
	}
}

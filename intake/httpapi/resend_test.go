package httpapi

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/mailpouch/mailpouch/intake"
	"github.com/mailpouch/mailpouch/internal/testserver/node"
)

// result is what Resend's SDK gives to its program.
type result struct {
	Data  map[string]any `json:"data"`
	Error *struct {
		Name       string `json:"name"`
		Message    string `json:"message"`
		StatusCode int    `json:"statusCode"`
		Field      string `json:"field"`
	} `json:"error"`
	Headers map[string]string `json:"headers"`
}

func (r result) id() string {
	id, _ := r.Data["id"].(string)
	return id
}

// name is that of the error, with what it is about.
func (r result) name() string {
	if r.Error == nil {
		return ""
	}
	return r.Error.Name + " " + r.Error.Field
}

// list is the list of objects that is in the data.
func (r result) list(name string) (all []map[string]any) {
	values, _ := r.Data[name].([]any)
	for _, v := range values {
		object, _ := v.(map[string]any)
		all = append(all, object)
	}
	return all
}

// Resend's SDK for Node.js, unchanged, gets on with the API.
func TestResendForNode(t *testing.T) {
	t.Parallel()
	dir := node.Scripts(t, "testdata/resend")
	h := newHouse(t, Config{}, func(k *intake.Key) { k.Queue = "shop" })
	script := exec.CommandContext(t.Context(), "node", "client.js")
	script.Dir = dir
	script.Env = append(os.Environ(), "RESEND_BASE_URL="+h.server.URL, "RESEND_API_KEY="+h.secret, "NODE_ENV=production")
	var stderr bytes.Buffer
	script.Stderr = &stderr
	out, err := script.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, stderr.String())
	}
	var got map[string]result
	if err := json.Unmarshal(out, &got); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	refused := map[string]string{
		"other": nameIdempotentRequest + " " + headerKey, "twice": nameNotFound + " ", "strict": nameValidation + " [1].to[0]",
		"template": nameNotSupported + " template", "path": nameNotSupported + " attachments[0].path", "listed": nameMethod + " ", "wrongKey": nameInvalidKey + " Authorization",
	}
	for what, r := range got {
		if r.name() != refused[what] {
			t.Errorf("%s: error %+v, want %q", what, r.Error, refused[what])
		}
		if r.Error != nil && (r.Error.StatusCode < 400 || r.Error.Message == "" || r.Headers["content-type"] != typeJSON) {
			t.Errorf("%s: %+v", what, r)
		}
	}
	if len(got) != 19 {
		t.Errorf("%d calls", len(got))
	}
	if got["keyed"].id() == "" || got["again"].id() != got["keyed"].id() {
		t.Errorf("with a key: %s and %s", got["keyed"].id(), got["again"].id())
	}
	if s := got["got"].Data; s["last_event"] != "queued" || s["from"] != "Shop <shop@example.com>" || s["subject"] != "Hello" || s["object"] != "email" {
		t.Errorf("%v", s)
	}
	if s := got["later"].Data; s["last_event"] != "scheduled" || s["scheduled_at"] != "2099-12-24T18:00:00Z" {
		t.Errorf("%v", s)
	}
	if !reflect.DeepEqual(got["updated"].Data, got["cancelled"].Data) || got["updated"].Data["object"] != "email" || got["updated"].id() != got["scheduled"].id() {
		t.Errorf("%v, %v", got["updated"].Data, got["cancelled"].Data)
	}
	if n := len(got["batch"].list("data")); n != 3 || !reflect.DeepEqual(got["keyedBatch"].Data, got["batchAgain"].Data) {
		t.Errorf("%d of a batch; %v, and again %v", n, got["keyedBatch"].Data, got["batchAgain"].Data)
	}
	if p := got["permissive"]; len(p.list("data")) != 1 || len(p.list("errors")) != 1 || p.list("errors")[0]["index"] != 1.0 {
		t.Errorf("%v", p.Data)
	}
	_, m, err := h.queue.Message(t.Context(), got["sent"].id())
	if err != nil || m == nil {
		t.Fatal(err)
	}
	var files []string
	for _, a := range m.Attachments {
		files = append(files, strings.Join([]string{a.Filename, string(a.Content), a.Mimetype, a.ContentID}, "|"))
	}
	if !slices.Equal(files, []string{"a.txt|a file||", "b.txt|another|text/x-b|", "logo.png|\x01\x02\x03||logo"}) {
		t.Errorf("files %q", files)
	}
	if !slices.Equal(m.To, []string{"ann@example.net", "Bob <bob@example.net>"}) || !slices.Equal(m.Cc, []string{"carl@example.net"}) || !slices.Equal(m.Bcc, []string{"dora@example.net"}) ||
		!slices.Equal(m.ReplyTo, []string{"help@example.com"}) || m.Headers["X-Entity-Ref-ID"] != "7" || m.Body != "It works." || len(m.Alternatives) != 1 {
		t.Errorf("%+v", m)
	}
}

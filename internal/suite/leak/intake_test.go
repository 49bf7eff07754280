package leak

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/smtp"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// keysFile is a file of keys with one whose secret is a mark.
func keysFile(t *testing.T) string {
	t.Helper()
	return file(t, "keys", fmt.Sprintf(`{"name":"shop","hash":"sha256:%x","choices":["tags","schedule"]}`, sha256.Sum256([]byte(apiSecret))))
}

// startEndpoint starts an endpoint that refuses the first events, and repeats all that it was sent and all that it knows. taken is closed when it
// takes one.
func startEndpoint(t *testing.T) (env []string, taken <-chan struct{}) {
	t.Helper()
	var posts atomic.Int32
	took := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		said, _ := io.ReadAll(r.Body)
		w.Header().Set("X-You-Are", fmt.Sprint(r.URL, r.Header))
		w.Header().Set("Location", r.URL.String())
		refusals := []int{http.StatusInternalServerError, http.StatusFound, http.StatusUnauthorized}
		switch n := int(posts.Add(1)); {
		case n <= len(refusals):
			w.WriteHeader(refusals[n-1])
		case n == len(refusals)+1:
			defer close(took)
		}
		_, _ = fmt.Fprintf(w, "%s %v %s %s", r.URL, r.Header, said, hookSecret)
	}))
	t.Cleanup(server.Close)
	to := strings.Replace(server.URL, "http://", "http://hook:"+string(hookPassword)+"@", 1) + "/" + string(hookToken) + "?token=" + string(hookToken)
	return []string{
		"EMAIL_WEBHOOK_URL=" + to, "EMAIL_WEBHOOK_ALLOW_PRIVATE=true",
		"EMAIL_WEBHOOK_SECRET=whsec_" + base64.StdEncoding.EncodeToString([]byte(hookSecret)),
	}, took
}

// login logs in with any secret, in clear text.
type login string

func (l login) Start(*smtp.ServerInfo) (string, []byte, error) {
	return "PLAIN", []byte("\x00any\x00" + string(l)), nil
}
func (login) Next([]byte, bool) ([]byte, error) { return nil, nil }

// handIn hands a message in over SMTP, and returns what the server has said of it.
func handIn(t *testing.T, addr, secret, to, message string) string {
	t.Helper()
	c, err := smtp.Dial(addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	err = c.Auth(login(secret))
	if err == nil {
		err = c.Mail(string(author) + "@example.com")
	}
	if err == nil {
		err = c.Rcpt(to)
	}
	if err != nil {
		return err.Error()
	}
	w, err := c.Data()
	if err != nil {
		return err.Error()
	}
	_, _ = io.WriteString(w, message)
	if err = w.Close(); err != nil {
		return err.Error()
	}
	return "accepted"
}

// ask makes a request, with a token if it is not empty, and returns all of the answer.
func ask(t testing.TB, method, to, token string, body any) string {
	t.Helper()
	text, isText := body.(string)
	if !isText {
		data, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		text = string(data)
	}
	r, err := http.NewRequestWithContext(t.Context(), method, to, strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	reply, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = reply.Body.Close() }()
	data, err := io.ReadAll(reply.Body)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%s\n%v\n%s", reply.Status, reply.Header, data)
}

// email is a message in the dialect of the API.
func email(verdict string) map[string]any {
	return map[string]any{
		"from": string(author) + "@example.com", "to": to(verdict, "login"), "bcc": string(blindCopy) + "@example.org", "subject": subjectText(),
		"text": bodyText(), "html": htmlText(), "headers": map[string]string{"X-Code": headerText()},
		"attachments": []map[string]any{{"filename": fileText(), "content": []byte(bytesText())}},
	}
}

// TestIntake: mail that comes in over SMTP and HTTP, of clients that show their keys where they should not, and events that go to an endpoint which repeats all.
func TestIntake(t *testing.T) {
	s := newSite(t, startRelay(t, false))
	keys := keysFile(t)
	env, taken := startEndpoint(t)
	s.env = append(append(s.env, env...), "EMAIL_API_KEYS_FILE="+keys, "EMAIL_SUBMISSION_ADDR=127.0.0.1:0", "EMAIL_API_ADDR=127.0.0.1:0")
	find(t, "worker check", s.must("", "worker", "check"), slices.Concat(credentials(), contents()))
	find(t, "worker key list", s.must("", "worker", "key", "list"), everything())

	w := s.worker(nil)
	pages := w.pages()
	addr := w.says("where it takes mail over SMTP", func(l logLine) bool { return l.Message == "takes mail over SMTP" }).Addr
	api := w.says("where it takes mail over HTTP", func(l logLine) bool { return l.Message == "takes mail over HTTP" }).URL
	ends := 0
	for _, verdict := range verdicts() {
		if said := handIn(t, addr, string(apiSecret), to(verdict, "login"), rawMessage(verdict)); said != "accepted" {
			t.Fatal(said)
		}
		said := ask(t, http.MethodPost, api+"/emails", string(apiSecret), email(verdict))
		if !strings.HasPrefix(said, "200 ") {
			t.Fatal(said)
		}
		find(t, "an answer", said, everything())
		ends += 2
		if verdict == "rcpt" { // who gets a blind copy does
			ends++
		}
	}
	for name, said := range map[string]string{
		"a wrong key":                handIn(t, addr, string(apiSecret)+"x", to("ok", "x"), rawMessage("ok")),
		"a message with a bad field": handIn(t, addr, string(apiSecret), to("ok", "x"), "X-Mailpouch-Queue: "+headerText()+"\r\n"+rawMessage("ok")),
		"a message with a NUL":       handIn(t, addr, string(apiSecret), to("ok", "x"), rawMessage("ok")+"\x00"),
	} {
		if said == "accepted" {
			t.Errorf("%s is accepted", name)
		}
		find(t, "the reply to "+name, said, credentials())
	}
	breaking := email("ok")
	breaking["headers"] = map[string]string{"X-Code": headerText() + "\r\nBcc: eve@example.com"}
	for name, said := range map[string]string{
		"a wrong key":        ask(t, http.MethodPost, api+"/emails", string(apiSecret)+"x", email("ok")),
		"a key in the path":  ask(t, http.MethodGet, api+"/emails/"+url.PathEscape(string(apiSecret)), string(apiSecret), ""),
		"a key in the query": ask(t, http.MethodPost, api+"/emails?api_key="+url.QueryEscape(string(apiSecret)), "", email("ok")),
		"no JSON":            ask(t, http.MethodPost, api+"/emails", string(apiSecret), `{"text":"`+bodyText()+`"`),
		"a field of two":     ask(t, http.MethodPost, api+"/emails", string(apiSecret), breaking),
		"a batch":            ask(t, http.MethodPost, api+"/emails/batch", string(apiSecret), []any{email("ok"), breaking}),
	} {
		if strings.HasPrefix(said, "200 ") {
			t.Errorf("%s: %s", name, said)
		}
		find(t, "the answer to "+name, said, everything())
	}
	w.ends(ends)
	select {
	case <-taken:
	case <-time.After(patience):
		t.Error("the endpoint gets no events")
	}

	// Somebody has put the secret itself into the file.
	if err := os.WriteFile(keys, []byte(`{"name":"shop","hash":"`+string(apiSecret)+`"}`+"\n"+string(apiSecret)+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := w.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	w.says("that the file of keys is wrong", func(l logLine) bool { return strings.Contains(l.Message, "EMAIL_API_KEYS_FILE") })
	for _, path := range []string{"", "status.json", "metrics", "readyz"} {
		find(t, "/"+path, s.fetch(pages+path, string(httpToken)), everything())
	}
	code, said := s.run("", nil, "worker", "check")
	if code == 0 {
		t.Error("worker check is content with the file of keys")
	}
	find(t, "worker check", said, slices.Concat(credentials(), contents()))
	s.checkAll()
	find(t, "enqueue history", s.must("", "enqueue", "history", "--tag", "api-key:shop", "--json"), everything())
	if args, err := os.ReadFile(filepath.Join("/proc", fmt.Sprint(w.cmd.Process.Pid), "cmdline")); err == nil {
		find(t, "the command line", string(args), everything())
	}
	find(t, "the log", w.stop(), everything())
}

// checkAll looks at all that is in Redis: credentials are nowhere, and contents in the messages alone.
func (s *site) checkAll() {
	s.Helper()
	client, others := s.redis.Client(s), slices.Concat(credentials(), contents(), titles())
	streams := 0
	for _, key := range client.Keys(s.Context(), "*").Val() {
		find(s.T, "the key "+key, key, others)
		switch client.Type(s.Context(), key).Val() {
		case "hash":
			for name, value := range client.HGetAll(s.Context(), key).Val() {
				marks := others
				if name == "msg" {
					marks = credentials()
				}
				find(s.T, "Redis, "+key+" "+name, value, marks)
			}
		case "stream":
			all := client.XRange(s.Context(), key, "-", "+").Val()
			find(s.T, "Redis, "+key, fmt.Sprint(all), others)
			streams += len(all)
		case "string":
			if value, err := client.Get(s.Context(), key).Result(); !errors.Is(err, redis.Nil) && !strings.Contains(key, "blob") {
				find(s.T, "Redis, "+key, value, others)
			}
		case "list":
			find(s.T, "Redis, "+key, fmt.Sprint(client.LRange(s.Context(), key, 0, -1).Val()), others)
		case "zset":
			find(s.T, "Redis, "+key, fmt.Sprint(client.ZRange(s.Context(), key, 0, -1).Val()), others)
		}
	}
	if streams == 0 {
		s.Error("there are no events")
	}
}

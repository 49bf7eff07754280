package inbox_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/mailpouch/mailpouch/internal/catcher"
)

// call makes a request of the API and reads its answer.
func call(t *testing.T, method, address string, answer any) int {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, address, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	if got := response.Header.Get("Content-Type"); got != "application/json" {
		t.Errorf("%s %s: Content-Type %q", method, address, got)
	}
	if err := json.Unmarshal(body, answer); err != nil {
		t.Fatalf("%s %s: %v in\n%s", method, address, err, body)
	}
	return response.StatusCode
}

type apiList struct {
	Total, Found, Start int
	Messages            []struct {
		ID      int
		Subject string
	}
}

func (l apiList) ids() string {
	var ids []string
	for _, m := range l.Messages {
		ids = append(ids, fmt.Sprint(m.ID))
	}
	return strings.Join(ids, " ")
}

func TestAPI_message(t *testing.T) {
	server, base := start(t, catcher.Config{})
	send(t, server, mixed)
	for _, id := range []string{"1", "latest"} {
		var got map[string]any
		if code := call(t, http.MethodGet, base+"/api/messages/"+id, &got); code != http.StatusOK {
			t.Fatalf("status %d: %v", code, got)
		}
		if when, err := time.Parse(time.RFC3339, fmt.Sprint(got["time"])); err != nil || time.Since(when) > time.Hour {
			t.Errorf("time %v: %v", got["time"], err)
		}
		for field, want := range map[string]any{
			"id": 1.0, "subject": "Your order <b>&", "text": `Schön, <script>alert("text")</script>`, "attachments": 1.0, "tls": false, "username": "",
			"from":     []any{map[string]any{"name": "Schöner Laden", "address": "shop@example.com"}},
			"to":       []any{map[string]any{"name": "Ann", "address": "ann@example.com"}},
			"cc":       []any{},
			"envelope": map[string]any{"from": "shop@example.com", "to": []any{"ann@example.com", "secret@example.com"}},
			"snippet":  `Schön, <script>alert("text")</script>`,
		} {
			if !reflect.DeepEqual(got[field], want) {
				t.Errorf("%s = %#v, want %#v", field, got[field], want)
			}
		}
		if html := fmt.Sprint(got["html"]); !strings.Contains(html, "tracker.example") || !strings.Contains(html, `<p id="hello">`) {
			t.Errorf("html = %s: it has to be as it was sent", html)
		}
		parts := got["parts"].([]any)
		last := parts[len(parts)-1].(map[string]any)
		if len(parts) != 3 || last["filename"] != "bill.html" || last["attachment"] != true || last["url"] != "/api/messages/1/parts/2" {
			t.Errorf("parts = %v", parts)
		}
	}
	if got := get(t, base+"/api/messages/1/parts/2"); got.code != 200 || got.body != `<script>alert("file")</script>` || got.header.Get("Content-Disposition") != "attachment; filename=bill.html" {
		t.Errorf("a part: %+v", got)
	}
	if got := get(t, base+"/api/messages/1/source"); got.code != 200 || !strings.HasPrefix(got.body, "From: =?utf-8?q?Sch=C3=B6ner_Laden?=") {
		t.Errorf("the source: %+v", got)
	}
}

func TestAPI_searchAndDelete(t *testing.T) {
	server, base := start(t, catcher.Config{MaxKeep: 100})
	for n := range 6 {
		send(t, server, fmt.Sprintf("From: shop@example.com\nTo: Customer %d <c%d@example.com>\nSubject: Order no. %d\n\nWelcome, dear customer\n", n, n, n))
	}
	send(t, server, "Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\nContent-Type: text/html\nContent-Transfer-Encoding: base64\n\nPGI+V2VsPC9iPjxpPmNvbWU8L2k+Jm5ic3A7Zm9vIGJhcg==\n")
	query := func(q string) string { return "?q=" + url.QueryEscape(q) }
	for _, tt := range []struct{ q, want string }{
		{"?start=1&limit=2", "6 5"}, {"?start=100", ""}, {"?limit=0", ""},
		{query("no. 3"), "4"}, {query("NO. 3"), "4"}, {query("subject:order to:c5@"), "6"}, {query(`"dear customer" from:shop subject:4`), "5"},
		{query("grüße"), "7"}, {query("subject:GRÜSSE"), ""}, {query("welcome foo"), "7"}, {query("secret@example.com order"), "6 5 4 3 2 1"},
		{query("to:shop@example.com"), ""}, {query("from:"), "7 6 5 4 3 2 1"}, {query(`"`), "7 6 5 4 3 2 1"}, {query("nobody"), ""},
	} {
		var got apiList
		if code := call(t, http.MethodGet, base+"/api/messages"+tt.q, &got); code != http.StatusOK || got.ids() != tt.want || got.Total != 7 {
			t.Errorf("%s: %d, %s of %d, want %s", tt.q, code, got.ids(), got.Total, tt.want)
		}
	}
	for _, tt := range []struct {
		path string
		code int
		want string
	}{
		{"/api/messages?limit=1001", 400, "limit: a whole number from 0 to 1000"}, {"/api/messages?start=-1", 400, "start:"}, {"/api/messages?wait=2m", 400, "wait: a duration up to 1m0s"},
		{"/api/messages/latest?wait=x", 400, "wait:"}, {"/api/messages/latest?q=nobody", 404, "no such message yet"}, {"/api/messages/99", 404, `no message "99"`},
		{"/api/messages/x", 404, `no message "x"`}, {"/api/messages/1/parts/9", 404, `no part "9"`}, {"/api/other", 404, "there is no GET /api/other"},
	} {
		var got struct{ Error string }
		if code := call(t, http.MethodGet, base+tt.path, &got); code != tt.code || !strings.Contains(got.Error, tt.want) {
			t.Errorf("%s: %d %q, want %d %q", tt.path, code, got.Error, tt.code, tt.want)
		}
	}
	var deleted struct{ Deleted int }
	for _, tt := range []struct {
		path string
		want int
		left string
	}{
		{"/api/messages/3", 1, "7 6 5 4 2 1"}, {"/api/messages/latest?q=order", 1, "7 5 4 2 1"}, {"/api/messages?q=to:c0", 1, "7 5 4 2"}, {"/api/messages?q=nobody", 0, "7 5 4 2"}, {"/api/messages", 4, ""},
	} {
		code := call(t, http.MethodDelete, base+tt.path, &deleted)
		var left apiList
		call(t, http.MethodGet, base+"/api/messages", &left)
		if code != http.StatusOK || deleted.Deleted != tt.want || left.ids() != tt.left {
			t.Errorf("DELETE %s: %d, %d deleted, %s left; want %d and %s", tt.path, code, deleted.Deleted, left.ids(), tt.want, tt.left)
		}
	}
	// A number is never given twice: who has an old one finds nothing, and not another mail.
	send(t, server, "Subject: new\n\nx\n")
	var left apiList
	if call(t, http.MethodGet, base+"/api/messages", &left); left.ids() != "8" {
		t.Errorf("after a deletion the next message is %s", left.ids())
	}
}

// A test need not ask again and again whether its mail has come.
func TestAPI_wait(t *testing.T) {
	server, base := start(t, catcher.Config{})
	type answer struct {
		code int
		list apiList
	}
	done := make(chan answer, 1)
	go func() {
		var a answer
		a.code = call(t, http.MethodGet, base+"/api/messages?wait=1m&q=subject:wanted", &a.list)
		done <- a
	}()
	send(t, server, "Subject: another\n\nx\n")
	send(t, server, "Subject: wanted\n\nx\n")
	if got := <-done; got.code != http.StatusOK || got.list.ids() != "2" || got.list.Total != 2 {
		t.Errorf("%+v", got)
	}
	var none apiList
	if code := call(t, http.MethodGet, base+"/api/messages?wait=1ms&q=nobody", &none); code != http.StatusOK || len(none.Messages) != 0 || none.Total != 2 {
		t.Errorf("%d %+v", code, none)
	}
}

// Nobody's page elsewhere deletes mail, by a form or by a script.
func TestDelete_fromElsewhere(t *testing.T) {
	server, base := start(t, catcher.Config{})
	send(t, server, "Subject: x\n\nx\n")
	request := func(method, path string, header map[string]string) int {
		r, err := http.NewRequestWithContext(t.Context(), method, base+path, strings.NewReader("number=1"))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		for name, value := range header {
			r.Header.Set(name, value)
		}
		response, err := http.DefaultTransport.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		return response.StatusCode
	}
	t.Cleanup(http.DefaultTransport.(*http.Transport).CloseIdleConnections)
	for _, header := range []map[string]string{{"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Origin": "null"}} {
		for method, path := range map[string]string{http.MethodPost: "/delete", http.MethodDelete: "/api/messages"} {
			if code := request(method, path, header); code != http.StatusForbidden {
				t.Errorf("%s %s with %v: %d", method, path, header, code)
			}
		}
	}
	if n := len(server.Messages()); n != 1 {
		t.Fatalf("%d messages are left", n)
	}
	if code := request(http.MethodPost, "/delete", map[string]string{"Sec-Fetch-Site": "same-origin"}); code != http.StatusSeeOther || len(server.Messages()) != 0 {
		t.Errorf("the page's own button: %d, %d messages are left", code, len(server.Messages()))
	}
}

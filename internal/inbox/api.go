package inbox

import (
	"context"
	"encoding/json"
	"net/http"
	"net/mail"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/mailpouch/mailpouch/internal/catcher"
)

// The API for tests. The number of a message is its id; "latest" is the newest one, of those that q finds if there is a search.
//
//	GET    /api/messages?q=&start=0&limit=50&wait=10s  summaries, the newest first; wait waits until there is one
//	GET    /api/messages/{id}?q=&wait=10s              a message in full
//	GET    /api/messages/{id}/source                   as it was received
//	GET    /api/messages/{id}/parts/{n}                the content of a part
//	DELETE /api/messages/{id}
//	DELETE /api/messages?q=                            all, or those that q finds
//
// An error is a JSON object with the field error.
func (i *inbox) addAPI(mux *http.ServeMux) {
	mux.HandleFunc("GET /api/messages", i.apiList)
	mux.HandleFunc("DELETE /api/messages", func(w http.ResponseWriter, r *http.Request) {
		respond(w, http.StatusOK, map[string]int{"deleted": i.server.Delete(parseSearch(r.FormValue("q")).matches)})
	})
	mux.HandleFunc("GET /api/messages/{id}", i.apiMessage(func(w http.ResponseWriter, _ *http.Request, m catcher.Message) {
		respond(w, http.StatusOK, newMessage(m))
	}))
	mux.HandleFunc("GET /api/messages/{id}/source", i.apiMessage(source))
	mux.HandleFunc("GET /api/messages/{id}/parts/{part}", i.apiMessage(apiPart))
	mux.HandleFunc("DELETE /api/messages/{id}", i.apiMessage(func(w http.ResponseWriter, _ *http.Request, m catcher.Message) {
		n := i.server.Delete(func(other catcher.Message) bool { return other.Number == m.Number })
		respond(w, http.StatusOK, map[string]int{"deleted": n})
	}))
	mux.HandleFunc("/api/", func(w http.ResponseWriter, r *http.Request) {
		refuse(w, http.StatusNotFound, "there is no "+r.Method+" "+r.URL.Path)
	})
}

// listing is the answer to GET /api/messages.
type listing struct {
	Total    int       `json:"total"` // kept
	Found    int       `json:"found"` // by the search
	Start    int       `json:"start"`
	Messages []summary `json:"messages"`
}

// summary is a message without its contents.
type summary struct {
	ID          int       `json:"id"`
	Time        time.Time `json:"time"`
	Envelope    envelope  `json:"envelope"`
	From        []address `json:"from"`
	To          []address `json:"to"`
	Cc          []address `json:"cc"`
	Subject     string    `json:"subject"`
	MessageID   string    `json:"message_id"`
	Size        int       `json:"size"`
	Attachments int       `json:"attachments"`
	Snippet     string    `json:"snippet"` // the beginning of the text
}

type envelope struct {
	From string   `json:"from"`
	To   []string `json:"to"`
}

type address struct {
	Name    string `json:"name"`
	Address string `json:"address"`
}

// message is a message in full.
type message struct {
	summary
	ReplyTo  []address           `json:"reply_to"`
	Date     string              `json:"date"`
	Headers  map[string][]string `json:"headers"` // decoded, by canonical names
	Text     string              `json:"text"`
	HTML     string              `json:"html"`
	Parts    []apiPartView       `json:"parts"`
	Username string              `json:"username"` // of the login
	TLS      bool                `json:"tls"`
}

type apiPartView struct {
	URL         string `json:"url"`
	ContentType string `json:"content_type"`
	Filename    string `json:"filename"`
	ContentID   string `json:"content_id"`
	Attachment  bool   `json:"attachment"` // neither a text nor a picture that the HTML shows
	Size        int    `json:"size"`
	Problem     string `json:"problem,omitempty"` // what could not be decoded
}

// Limits of what may be asked for.
const (
	usualLimit = 50
	mostLimit  = 1000
	mostWait   = time.Minute
)

func (i *inbox) apiList(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	start, limit := 0, usualLimit
	for _, p := range []struct {
		name      string
		value     *int
		low, high int
	}{{"start", &start, 0, 1 << 30}, {"limit", &limit, 0, mostLimit}} {
		if text := q.Get(p.name); text != "" {
			n, err := strconv.Atoi(text)
			if err != nil || n < p.low || n > p.high {
				refuse(w, http.StatusBadRequest, p.name+": a whole number from "+strconv.Itoa(p.low)+" to "+strconv.Itoa(p.high)+" is expected")
				return
			}
			*p.value = n
		}
	}
	found, total, ok := i.search(w, r)
	if !ok {
		return
	}
	page := found[min(start, len(found)):]
	answer := listing{Total: total, Found: len(found), Start: start, Messages: []summary{}}
	for _, m := range page[:min(limit, len(page))] {
		answer.Messages = append(answer.Messages, newSummary(m, catcher.Decode(m.Raw)))
	}
	respond(w, http.StatusOK, answer)
}

// search returns the messages that q finds, the newest first. With wait it waits for the first one. If the request is bad, it
// answers it.
func (i *inbox) search(w http.ResponseWriter, r *http.Request) (found []catcher.Message, total int, ok bool) {
	q := r.URL.Query()
	var wait time.Duration
	if text := q.Get("wait"); text != "" {
		var err error
		if wait, err = time.ParseDuration(text); err != nil || wait < 0 || wait > mostWait {
			refuse(w, http.StatusBadRequest, "wait: a duration up to "+mostWait.String()+" is expected, such as 10s")
			return nil, 0, false
		}
		_ = http.NewResponseController(w).SetWriteDeadline(time.Time{})
	}
	ctx, cancel := context.WithTimeout(r.Context(), wait)
	defer cancel()
	s := parseSearch(q.Get("q"))
	for {
		changes := i.server.Changes()
		kept := i.server.Messages()
		total = len(kept)
		found = s.find(kept)
		if len(found) > 0 {
			return found, total, true
		}
		if _, err := i.server.WaitChange(ctx, changes); err != nil {
			return found, total, true
		}
	}
}

// apiMessage finds the message that the path names.
func (i *inbox) apiMessage(then func(http.ResponseWriter, *http.Request, catcher.Message)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.PathValue("id") == "latest" {
			found, _, ok := i.search(w, r)
			switch {
			case !ok:
			case len(found) == 0:
				refuse(w, http.StatusNotFound, "there is no such message yet")
			default:
				then(w, r, found[0])
			}
			return
		}
		id, err := strconv.Atoi(r.PathValue("id"))
		kept := i.server.Messages()
		at := slices.IndexFunc(kept, func(m catcher.Message) bool { return m.Number == id })
		if err != nil || at < 0 {
			refuse(w, http.StatusNotFound, "there is no message "+strconv.Quote(r.PathValue("id"))+", or it was deleted or dropped")
			return
		}
		then(w, r, kept[at])
	}
}

func apiPart(w http.ResponseWriter, r *http.Request, m catcher.Message) {
	parts := catcher.Decode(m.Raw).Parts
	at, err := strconv.Atoi(r.PathValue("part"))
	if err != nil || at < 0 || at >= len(parts) {
		refuse(w, http.StatusNotFound, "there is no part "+strconv.Quote(r.PathValue("part")))
		return
	}
	save(w, parts[at], filename(parts[at]))
}

func newSummary(m catcher.Message, d catcher.Decoded) summary {
	s := summary{
		ID: m.Number, Time: m.Time, Envelope: envelope{From: m.From, To: append([]string{}, m.To...)},
		From: addresses(catcher.Addresses(m.Raw, "From")), To: addresses(catcher.Addresses(m.Raw, "To")), Cc: addresses(catcher.Addresses(m.Raw, "Cc")),
		Subject: d.Header.Get("Subject"), MessageID: d.Header.Get("Message-ID"), Size: len(m.Raw),
	}
	shown := shownInside(d.Parts)
	for n, p := range d.Parts {
		if p.Text && s.Snippet == "" {
			s.Snippet = snippet(readable(p))
		}
		if !p.Text && !slices.Contains(shown, n) {
			s.Attachments++
		}
	}
	return s
}

func newMessage(m catcher.Message) message {
	d := catcher.Decode(m.Raw)
	full := message{
		summary: newSummary(m, d), ReplyTo: addresses(catcher.Addresses(m.Raw, "Reply-To")), Date: d.Header.Get("Date"),
		Headers: map[string][]string{}, Parts: []apiPartView{}, Username: m.Username, TLS: m.TLS,
	}
	for _, f := range d.Header {
		name := canonical(f.Name)
		full.Headers[name] = append(full.Headers[name], f.Value)
	}
	shown := shownInside(d.Parts)
	for n, p := range d.Parts {
		switch {
		case p.Text && p.MediaType == "text/html" && full.HTML == "":
			full.HTML = string(p.Content)
		case p.Text && p.MediaType == "text/plain" && full.Text == "":
			full.Text = string(p.Content)
		}
		full.Parts = append(full.Parts, apiPartView{
			URL: (&url.URL{Path: "/api/messages/" + strconv.Itoa(m.Number) + "/parts/" + strconv.Itoa(n)}).String(), ContentType: p.MediaType, Filename: p.Filename,
			ContentID: p.ContentID, Attachment: !p.Text && !slices.Contains(shown, n), Size: len(p.Content), Problem: strings.TrimPrefix(p.Problem, ", "),
		})
	}
	return full
}

func canonical(name string) string { return http.CanonicalHeaderKey(name) }

func addresses(list []mail.Address) []address {
	all := make([]address, len(list))
	for i, a := range list {
		all[i] = address{Name: a.Name, Address: a.Address}
	}
	return all
}

// snippet is the beginning of a text, in one line.
func snippet(text string) string {
	const most = 200
	text = strings.Join(strings.Fields(text[:min(len(text), 20*most)]), " ")
	if len(text) <= most {
		return strings.ToValidUTF8(text, "")
	}
	text = text[:most]
	for !utf8.ValidString(text) && len(text) > most-utf8.UTFMax {
		text = text[:len(text)-1]
	}
	return strings.ToValidUTF8(text, "") + "…"
}

func respond(w http.ResponseWriter, code int, answer any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false) // it is no page
	_ = encoder.Encode(answer)
}

func refuse(w http.ResponseWriter, code int, reason string) {
	respond(w, code, map[string]string{"error": reason})
}

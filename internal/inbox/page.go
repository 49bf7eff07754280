package inbox

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mailpouch/mailpouch/internal/catcher"
)

// maxListed is how many mails the page lists: the newest.
const maxListed = 200

// view is what inbox.html shows.
type view struct {
	Nonce   string
	Changes int // so far
	Kept    int // mails
	Found   int // of them, by the search
	Search  string
	List    []line
	Open    int       // the number of the mail that is shown, or 0
	Mail    *mailView // nil: the list alone
}

// Query is the end of a link that keeps the search.
func (v view) Query() string { return queryString(v.Search) }

// Count says how many mails there are.
func (v view) Count() string {
	switch {
	case v.Search != "":
		return fmt.Sprintf("%d of %d", v.Found, v.Kept)
	case v.Found > maxListed:
		return fmt.Sprintf("the newest %d of %d", maxListed, v.Kept)
	}
	return fmt.Sprintf("%d caught, none delivered", v.Kept)
}

// line is one mail in the list.
type line struct {
	Number            int
	Time              time.Time
	From, To, Subject string
}

// mailView is one mail in full.
type mailView struct {
	line
	Envelope catcher.Message
	Fields   catcher.Header // those that a mail program shows
	All      catcher.Header
	Texts    []partView
	Files    []partView
	Inline   []partView // pictures that the HTML shows
}

// Recipients are those of the envelope: blind copies are among them.
func (l *mailView) Recipients() string { return strings.Join(l.Envelope.To, ", ") }

// Size is that of the message as it was received.
func (l *mailView) Size() string { return size(len(l.Envelope.Raw)) }

// partView is a part of a mail.
type partView struct {
	catcher.Part
	Index  int
	Remote bool // HTML that names pictures on other servers
	Shown  bool // with these pictures
}

func (p partView) HTML() bool   { return p.MediaType == "text/html" }
func (p partView) Body() string { return string(p.Content) }
func (p partView) Name() string { return filename(p.Part) }
func (p partView) Size() string { return size(len(p.Content)) }

func size(n int) string {
	switch {
	case n >= 1_000_000:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	case n >= 1000:
		return fmt.Sprintf("%d kB", (n+500)/1000)
	case n == 1:
		return "1 byte"
	}
	return fmt.Sprintf("%d bytes", n)
}

func (i *inbox) show(w http.ResponseWriter, r *http.Request, m *catcher.Message) {
	v := i.view(r.FormValue("q"))
	v.Nonce = rand.Text()
	if m != nil {
		v.Mail, v.Open = newMailView(*m, r.FormValue("remote") != ""), m.Number
	}
	w.Header().Set("Content-Security-Policy", fmt.Sprintf("default-src 'none'; style-src 'nonce-%[1]s'; script-src 'nonce-%[1]s'; "+
		"connect-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'", v.Nonce))
	i.write(w, "page", v)
}

func (i *inbox) list(w http.ResponseWriter, r *http.Request) {
	v := i.view(r.FormValue("q"))
	v.Open, _ = strconv.Atoi(r.FormValue("open"))
	i.write(w, "list", v)
}

// view has the newest mails that a search finds.
func (i *inbox) view(search string) view {
	v := view{Search: search, Changes: i.server.Changes()} // before the list is made: what comes in between is shown twice rather than never
	kept := i.server.Messages()
	v.Kept = len(kept)
	found := parseSearch(search).find(kept)
	v.Found = len(found)
	for _, m := range found[:min(len(found), maxListed)] {
		v.List = append(v.List, newLine(m, catcher.DecodeHeader(m.Raw)))
	}
	return v
}

// write sends a template's text whole or not at all.
func (i *inbox) write(w http.ResponseWriter, name string, v view) {
	var out bytes.Buffer
	if err := i.page.ExecuteTemplate(&out, name, v); err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_, _ = out.WriteTo(w)
}

func newLine(m catcher.Message, h catcher.Header) line {
	return line{
		Number: m.Number, Time: m.Time, Subject: cmp.Or(h.Get("Subject"), "(no subject)"),
		From: cmp.Or(h.Get("From"), m.From), To: cmp.Or(h.Get("To"), strings.Join(m.To, ", ")),
	}
}

func newMailView(m catcher.Message, remote bool) *mailView {
	decoded := catcher.Decode(m.Raw)
	l := &mailView{line: newLine(m, decoded.Header), Envelope: m, All: decoded.Header}
	for _, name := range []string{"From", "To", "Cc", "Reply-To", "Date"} {
		if value := decoded.Header.Get(name); value != "" {
			l.Fields = append(l.Fields, catcher.Field{Name: name, Value: value})
		}
	}
	shown := shownInside(decoded.Parts)
	for i, p := range decoded.Parts {
		switch v := (partView{Part: p, Index: i}); {
		case p.Text:
			v.Remote = v.HTML() && namesRemote(p.Content)
			v.Shown = v.Remote && remote
			l.Texts = append(l.Texts, v)
		case slices.Contains(shown, i):
			l.Inline = append(l.Inline, v)
		default:
			l.Files = append(l.Files, v)
		}
	}
	return l
}

// Package inbox is a web page with the mail that a catcher.Server has caught, for people
// who try out a program's mail on their own machine, and an API for tests. It asks for no password.
package inbox

import (
	"fmt"
	"html/template"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mailpouch/mailpouch/internal/catcher"
)

type inbox struct {
	server *catcher.Server
	page   *template.Template
	names  []string // of this machine, beside localhost
}

// mail finds the message that the path names.
func (i *inbox) mail(then func(http.ResponseWriter, *http.Request, catcher.Message)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		number, err := strconv.Atoi(r.PathValue("number"))
		kept := i.server.Messages()
		at := slices.IndexFunc(kept, func(m catcher.Message) bool { return m.Number == number })
		if err != nil || at < 0 {
			http.Error(w, "There is no such mail, or it was deleted, or it is so old that it was dropped.", http.StatusNotFound)
			return
		}
		then(w, r, kept[at])
	}
}

// remove deletes one mail, or all that a search finds, and shows what is left.
func (i *inbox) remove(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 64<<10)
	text := r.FormValue("q")
	match := parseSearch(text).matches
	if number := r.FormValue("number"); number != "" {
		n, err := strconv.Atoi(number)
		if err != nil {
			http.Error(w, "number: a whole number is expected", http.StatusBadRequest)
			return
		}
		match = func(m catcher.Message) bool { return m.Number == n }
	}
	i.server.Delete(match)
	http.Redirect(w, r, "/"+queryString(text), http.StatusSeeOther)
}

// queryString is the end of a URL with this search.
func queryString(search string) string {
	if search == "" {
		return ""
	}
	return "?" + url.Values{"q": {search}}.Encode()
}

func source(w http.ResponseWriter, _ *http.Request, m catcher.Message) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = w.Write(m.Raw)
}

// save lets a browser save a part, and never show it.
func save(w http.ResponseWriter, p catcher.Part, name string) {
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": name}))
	_, _ = w.Write(p.Content)
}

// events sends the page an event for each change. It ends with the request, or
// when the mail server is closed.
func (i *inbox) events(w http.ResponseWriter, r *http.Request) {
	control := http.NewResponseController(w)
	_ = control.SetWriteDeadline(time.Time{}) // a server that has none says so, and needs none
	w.Header().Set("Content-Type", "text/event-stream")
	changes := i.server.Changes()
	for {
		if _, err := fmt.Fprintf(w, "data: %d\n\n", changes); err != nil {
			return
		}
		if err := control.Flush(); err != nil {
			return
		}
		var err error
		if changes, err = i.server.WaitChange(r.Context(), changes); err != nil {
			return
		}
	}
}

// filename is what an attachment without a name is called.
func filename(p catcher.Part) string {
	if name := strings.TrimSpace(p.Filename); name != "" {
		return name
	}
	return "unnamed"
}

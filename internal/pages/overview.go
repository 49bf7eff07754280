package pages

import (
	_ "embed" // the page
	"net/http"
)

var (
	//go:embed overview.html
	overviewHTML string
	//go:embed overview.js
	overviewJS string
)

// overview is the first page. Its script fetches the numbers from /status.json.
func overview() http.HandlerFunc {
	p := newPage(overviewPath, overviewHTML, overviewJS)
	return func(w http.ResponseWriter, _ *http.Request) { p.show(w, http.StatusOK, "Overview", nil) }
}

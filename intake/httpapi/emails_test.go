package httpapi

import (
	"testing"
)

func TestSmoke(t *testing.T) {
	h := newHouse(t, Config{}, nil)
	a := h.do(request{method: "POST", path: "/emails", body: `{"from":"Shop <shop@example.com>","to":"ann@example.net","subject":"Hello","html":"<b>x</b>"}`})
	t.Log(a.status, a.raw)
	b := h.do(request{method: "GET", path: "/emails/" + a.id()})
	t.Log(b.status, b.raw)
}

package httpapi

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/mailpouch/mailpouch/mailer"
)

// Each path and each method of the code is in the document, and no other.
func TestOpenAPI_paths(t *testing.T) {
	t.Parallel()
	d := document(t)
	var want, got []string
	for path, methods := range routes() {
		for method := range methods {
			want = append(want, path+" "+strings.ToLower(method))
		}
	}
	for _, path := range d.keys("#/paths") {
		for _, method := range d.keys("#/paths/" + strings.ReplaceAll(path, "/", "~1")) {
			got = append(got, path+" "+method)
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("the document has\n%q, the code\n%q", got, want)
	}
}

// fieldsOf are the JSON names of a struct's fields.
func fieldsOf(v any) []string {
	var names []string
	for f := range reflect.TypeOf(v).Fields() {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Each field of each request and each answer is in the document, and no other.
func TestOpenAPI_fields(t *testing.T) {
	t.Parallel()
	d := document(t)
	for schema, value := range map[string]any{
		"Email": email{}, "Attachment": attachment{}, "Tag": tag{}, "Reschedule": rescheduling{}, "Created": created{}, "Changed": changed{},
		"BatchCreated": batchAnswer{}, "BatchError": batchError{}, "EmailStatus": emailStatus{}, "Part": statusPart{}, "Error": apiError{},
	} {
		if got, want := d.keys("#/components/schemas/"+schema+"/properties"), fieldsOf(value); !slices.Equal(got, want) {
			t.Errorf("%s: the document has\n%q, the code\n%q", schema, got, want)
		}
	}
	if got, want := d.keys("#/components/schemas/Error/properties/queued/items/properties"), fieldsOf(queued{}); !slices.Equal(got, want) {
		t.Errorf("queued: the document has %q, the code %q", got, want)
	}
}

// The fields of our own JSON are those that mailer.EmailMessage reads: each is read, and what is not in the document is refused.
func TestOpenAPI_message(t *testing.T) {
	t.Parallel()
	d := document(t)
	const schema = "#/components/schemas/Message"
	documented := d.keys(schema + "/properties")
	for _, name := range documented {
		var m mailer.EmailMessage
		if err := m.UnmarshalJSON([]byte(`{"` + name + `":null}`)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	full := mailer.EmailMessage{Raw: []byte("x"), VERP: "a@b", ListUnsubscribe: mailer.ListUnsubscribe{URL: "x"}, FromEmail: "a@example.com",
		Attachments: []mailer.Attachment{{}}, Alternatives: []mailer.Alternative{{}}, Headers: map[string]string{"A": "b"}}
	data, err := full.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	d.check(t, schema, string(data))
	var object map[string]any
	if err := json.Unmarshal(data, &object); err != nil {
		t.Fatal(err)
	}
	if written := slices.Sorted(maps.Keys(object)); !slices.Equal(written, documented) {
		t.Errorf("the document has\n%q, the code\n%q", documented, written)
	}
}

// Each name of an error in the code is in the document, and no other.
func TestOpenAPI_errorNames(t *testing.T) {
	t.Parallel()
	source, err := os.ReadFile("errors.go")
	if err != nil {
		t.Fatal(err)
	}
	var want, got []string
	for _, m := range regexp.MustCompile(`(?m)^\tname[A-Z]\w+ += "(\w+)"$`).FindAllStringSubmatch(string(source), -1) {
		want = append(want, m[1])
	}
	v, _ := document(t).get("#/components/schemas/ErrorName/enum")
	list, _ := v.([]any)
	for _, name := range list {
		got = append(got, fmt.Sprint(name))
	}
	if len(want) < 15 || !slices.Equal(got, want) {
		t.Errorf("the document has\n%q, the code\n%q", got, want)
	}
}

// The parameters of POST /messages are those that the code reads.
func TestOpenAPI_parameters(t *testing.T) {
	t.Parallel()
	q := query{values: map[string][]string{}}
	q.options()
	want := append(q.read, "from", "to")
	var got []string
	v, _ := document(t).get("#/paths/~1messages/post/parameters")
	list, _ := v.([]any)
	for _, p := range list {
		if object, _ := p.(map[string]any); object["in"] == "query" {
			got = append(got, fmt.Sprint(object["name"]))
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("the document has %q, the code %q", got, want)
	}
}

// Every reference leads somewhere, and every answer has a schema that compiles.
func TestOpenAPI_references(t *testing.T) {
	t.Parallel()
	d := document(t)
	for _, m := range regexp.MustCompile(`"\$ref": "([^"]+)"`).FindAllStringSubmatch(string(openAPI), -1) {
		if !d.has(m[1]) {
			t.Errorf("%s leads nowhere", m[1])
		}
	}
	for _, name := range d.keys("#/components/schemas") {
		if !strings.Contains(string(openAPI), `"#/components/schemas/`+name+`"`) {
			t.Errorf("nothing refers to %s", name)
		}
		_ = d.validate(t, "#/components/schemas/"+name, "{}")
	}
}

// The document is for everybody, also without a key.
func TestOpenAPI_served(t *testing.T) {
	t.Parallel()
	h := newHouse(t, Config{}, nil)
	a := h.do(request{method: http.MethodGet, path: "/openapi.json", header: map[string]string{"Authorization": ""}})
	if a.status != http.StatusOK || a.text("openapi") != "3.1.0" || a.raw != string(openAPI) {
		t.Errorf("%d %.100s", a.status, a.raw)
	}
}

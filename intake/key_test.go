package intake

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	redistest "github.com/mailpouch/mailpouch/internal/testserver/redis"
)

func TestMain(m *testing.M) { redistest.VerifyTestMain(m) }

// line is a key as its file has it.
func line(t testing.TB, k Key) string {
	t.Helper()
	data, err := json.Marshal(k)
	if err != nil {
		t.Fatal(err)
	}
	return string(data) + "\n"
}

func TestKeys(t *testing.T) {
	t.Parallel()
	shop, secret := NewKey("shop")
	shop.From, shop.Mailer, shop.Queue = Senders{"example.com"}, "marketing", "bulk"
	if err := shop.Rate.UnmarshalText([]byte("100/s, 5000/d")); err != nil {
		t.Fatal(err)
	}
	other, otherSecret := NewKey("other")
	path := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(path, []byte("# of the shop\n\n"+line(t, shop)+line(t, other)), 0o600); err != nil {
		t.Fatal(err)
	}
	keys, err := ReadKeysFile(path)
	if err != nil {
		t.Fatal(err)
	}
	found := keys.Find(secret)
	if found == nil || line(t, *found) != line(t, shop) {
		t.Fatalf("found %+v, want %+v", found, shop)
	}
	if found := keys.Find(otherSecret); found == nil || found.Name != "other" {
		t.Errorf("found %+v, want the other key", found)
	}
	s := New(nil, nil, new(Keys))
	if s.SetKeys(keys); s.Current(&Key{Name: "old", Hash: shop.Hash}) != found {
		t.Error("the key is not as it is now")
	}
	if s.SetKeys(new(Keys)); s.Current(found) != nil {
		t.Error("a key that was taken away is there")
	}
	for _, wrong := range []string{"", secret + "x", secret[:len(secret)-1], strings.ToLower(secret), shop.Name} {
		if keys.Find(wrong) != nil {
			t.Errorf("%q finds a key", wrong)
		}
	}
	if strings.Contains(line(t, shop), secret) {
		t.Error("the file has the secret")
	}
	if new(Keys).Find(secret) != nil {
		t.Error("there is a key where there is none")
	}
	if got := len(keys.All()); got != 2 {
		t.Errorf("%d keys, want 2", got)
	}
}

func TestNewKey(t *testing.T) {
	t.Parallel()
	_, first := NewKey("a")
	_, second := NewKey("a")
	if first == second || len(first) != len("mp_")+32 || !strings.HasPrefix(first, "mp_") {
		t.Errorf("secrets %q and %q", first, second)
	}
}

// Every line that is no key is named, and what is wrong with it.
func TestReadKeys_wrong(t *testing.T) {
	t.Parallel()
	good, _ := NewKey("shop")
	hash, _ := good.Hash.MarshalText()
	with := func(more string) string {
		return `{"name":"a","hash":"` + strings.Replace(string(hash), "sha256:", "sha256:", 1) + `"` + more + "}"
	}
	tests := []struct{ name, text, want string }{
		{"no JSON", "shop", "line 1: "},
		{"an unknown field", with(`,"form":["example.com"]`), `unknown field "form"`},
		{"no name", `{"hash":"` + string(hash) + `"}`, "name: is missing"},
		{"a name with a blank", `{"name":"a b","hash":"` + string(hash) + `"}`, "name: "},
		{"a long name", `{"name":"` + strings.Repeat("a", 49) + `","hash":"` + string(hash) + `"}`, "more than 48 bytes"},
		{"no hash", `{"name":"a"}`, "hash: is missing"},
		{"the secret itself", `{"name":"a","hash":"mp_AAAA"}`, "64 hexadecimal digits"},
		{"a short hash", `{"name":"a","hash":"sha256:ab"}`, "64 hexadecimal digits"},
		{"a sender", with(`,"from":["example.com","a b"]`), `"a b" is neither a mail address nor a domain`},
		{"a rate", with(`,"rate":"fast"`), "is not a rate"},
		{"a choice", with(`,"choices":["tags","all"]`), `"all" is no choice`},
		{"a queue", with(`,"queue":"a b"`), "queue"},
		{"a mailer", with(`,"mailer":"a b"`), "mailer"},
		{"two on a line", with("") + with(""), "each has its own line"},
		{"the same name", line(t, good) + strings.Replace(line(t, good), string(hash), "sha256:"+strings.Repeat("ab", 32), 1), "line 2: name: there is a key shop already"},
		{"the same secret", line(t, good) + with(""), "line 2: hash: is that of the key shop"},
		{"all at once", "x\n" + line(t, good) + "\ny\n", "line 4: "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			keys, err := ReadKeys(strings.NewReader(tt.text))
			if err == nil || keys != nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want an error with %q", err, tt.want)
			}
		})
	}
	if _, err := ReadKeysFile(filepath.Join(t.TempDir(), "none")); !os.IsNotExist(err) {
		t.Errorf("%v, want that there is no such file", err)
	}
}

func TestSenders(t *testing.T) {
	t.Parallel()
	senders, err := ParseSenders("news@example.com, .example.org,b\u00fccher.example,ken@example.com")
	if err != nil {
		t.Fatal(err)
	}
	yes := []string{"news@example.com", "NEWS@Example.COM", "a@example.org", "a@b.c.example.org", "a@xn--bcher-kva.example", "a@B\u00dcCHER.example", `"a@b"@example.org`}
	no := []string{"other@example.com", "a@badexample.org", "a@example.org.evil.example", "a@sub.xn--bcher-kva.example", "example.org", "", "a@example.net", "news@example.com@evil.example", "\u212aen@example.com"}
	for _, address := range yes {
		if !senders.allow(address) {
			t.Errorf("%s is not allowed", address)
		}
	}
	for _, address := range no {
		if senders.allow(address) {
			t.Errorf("%s is allowed", address)
		}
	}
	if !slices.Equal(senders, Senders{"news@example.com", ".example.org", "b\u00fccher.example", "ken@example.com"}) {
		t.Errorf("%q", senders)
	}
}

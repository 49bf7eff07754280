package auth

import "testing"

// TestScram is the example of RFC 7677, 3.
func TestScram(t *testing.T) {
	s := &scram{user: "user", password: "pencil", nonce: "rOprNGfwEbeRWgbNEkqO"}
	_, first, _ := s.Start()
	if got := string(first); got != "n,,n=user,r=rOprNGfwEbeRWgbNEkqO" {
		t.Errorf("first: %s", got)
	}
	final, err := s.Next([]byte("r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"))
	want := "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
	if string(final) != want || err != nil {
		t.Errorf("final: %s, %v", final, err)
	}
	if s.proven() {
		t.Error("proven too early")
	}
	if _, err := s.Next([]byte("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=")); err != nil || !s.proven() {
		t.Errorf("verify: %v", err)
	}
}

func TestScram_refuses(t *testing.T) {
	for name, challenge := range map[string]string{
		"foreign nonce":   "r=other,s=c2FsdA==,i=4096",
		"nonce unchanged": "r=abc,s=c2FsdA==,i=4096",
		"few iterations":  "r=abcd,s=c2FsdA==,i=1",
		"many iterations": "r=abcd,s=c2FsdA==,i=100000000",
		"bad salt":        "r=abcd,s=*,i=4096",
		"no number":       "r=abcd,s=c2FsdA==,i=x",
		"too short":       "r=abcd",
		"extension":       "m=needed,r=abcd,s=c2FsdA==,i=4096",
		"nothing":         "",
	} {
		s := &scram{user: "user", password: "pencil", nonce: "abc"}
		_, _, _ = s.Start()
		if answer, err := s.Next([]byte(challenge)); err == nil {
			t.Errorf("%s: answered %s", name, answer)
		}
	}
}

// TestCramMD5 is the example of RFC 2195, 2.
func TestCramMD5(t *testing.T) {
	m := &cramMD5{"tim", "tanstaaftanstaaf"}
	got, err := m.Next([]byte("<1896.697170952@postoffice.reston.mci.net>"))
	if string(got) != "tim b913a602c7eda7a495b4e6e7334d3890" || err != nil {
		t.Errorf("got %s, %v", got, err)
	}
}

// TestNewHider: what a server repeats of our secrets, at any time and in any form.
func TestNewHider(t *testing.T) {
	t.Parallel()
	const secret = "pass/w+rd=&"
	for _, tt := range []struct{ name, said, want string }{
		{"nothing", "250 Ok", "250 Ok"},
		{"as it is", "235 welcome " + secret, "235 welcome (hidden)"},
		{"in base64", "235 cGFzcy93K3JkPSY=", "235 (hidden)"},
		{"in base64 without its end", "235 cGFzcy93K3JkPSY", "235 (hidden)"},
		{"in a URL", "550 https://x/?p=pass%2Fw%2Brd%3D%26", "550 https://x/?p=(hidden)"},
		{"in hex", "550 706173732f772b72643d26", "550 (hidden)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := NewHider(secret).Replace(tt.said); got != tt.want {
				t.Errorf("%q; want %q", got, tt.want)
			}
		})
	}
	if NewHider("short") != nil {
		t.Error("a short word is taken out of all that a server says")
	}
}

package settings

import (
	"strings"
	"testing"
)

func TestMembers(t *testing.T) {
	for text, want := range map[string]string{
		"ses:3,postmark:1": "ses:3,postmark:1",
		" ses , eu-west:2": "ses:1,eu-west:2",
		"ses:0":            "!whole number from 1 to 1000",
		"ses:-1":           "!whole number",
		"ses:x":            "!whole number",
		"ses:1001":         "!whole number",
		"ses,":             `!"" is not a mailer's name`,
		"SES":              `!"SES" is not a mailer's name`,
		"ses,ses:2":        `!"ses" is named twice`,
	} {
		var m Members
		err := m.UnmarshalText([]byte(text))
		if wrong, bad := strings.CutPrefix(want, "!"); bad {
			if err == nil || !strings.Contains(err.Error(), wrong) {
				t.Errorf("%q: error %v, want %s", text, err, wrong)
			}
		} else if err != nil || m.String() != want {
			t.Errorf("%q: %s, %v, want %s", text, m, err, want)
		}
	}
}

// Everything that is wrong with members is found at the start, and named by the variable to change.
func TestLoad_members(t *testing.T) {
	base := map[string]string{
		"EMAIL_MAILERS": "main,ses,postmark", "EMAIL_MAIN_BACKEND": "failover", "EMAIL_MAIN_MEMBERS": "ses:3,postmark",
		"EMAIL_SES_HOST": "ses.example", "EMAIL_POSTMARK_HOST": "pm.example",
	}
	for name, tt := range map[string]struct {
		more map[string]string
		want string // "" if all is well
	}{
		"good":            {nil, ""},
		"default mailer":  {map[string]string{"EMAIL_BACKEND": "failover", "EMAIL_MEMBERS": "ses,postmark", "EMAIL_POLICY": "weighted"}, ""},
		"worker":          {map[string]string{"EMAIL_QUEUE_BACKEND": "failover", "EMAIL_MEMBERS": "ses"}, ""},
		"none":            {map[string]string{"EMAIL_MAIN_MEMBERS": ""}, "EMAIL_MAIN_MEMBERS: the failover backend needs the names of the mailers"},
		"none, default":   {map[string]string{"EMAIL_BACKEND": "failover"}, "EMAIL_MEMBERS: the failover backend needs"},
		"none, worker":    {map[string]string{"EMAIL_BACKEND": "queue", "EMAIL_QUEUE_BACKEND": "failover"}, "EMAIL_MEMBERS: the failover backend needs"},
		"itself":          {map[string]string{"EMAIL_MAIN_MEMBERS": "ses,main"}, `EMAIL_MAIN_MEMBERS: "main" cannot be a member of itself`},
		"the default one": {map[string]string{"EMAIL_MAIN_MEMBERS": "ses,default"}, `EMAIL_MAIN_MEMBERS: "default" cannot be a member: give that server a name`},
		"unknown":         {map[string]string{"EMAIL_MAIN_MEMBERS": "ses,postmrak"}, `EMAIL_MAIN_MEMBERS: the mailer "postmrak" is not configured; did you mean postmark?`},
		"failover itself": {map[string]string{"EMAIL_SES_BACKEND": "failover", "EMAIL_SES_HOST": "", "EMAIL_SES_MEMBERS": "postmark"}, `EMAIL_MAIN_MEMBERS: "ses" cannot be a member, since it has members itself`},
		"circle":          {map[string]string{"EMAIL_SES_BACKEND": "failover", "EMAIL_SES_HOST": "", "EMAIL_SES_MEMBERS": "main"}, `EMAIL_SES_MEMBERS: "main" cannot be a member, since it has members itself`},
		"queue":           {map[string]string{"EMAIL_SES_BACKEND": "queue", "EMAIL_SES_HOST": ""}, "EMAIL_SES_BACKEND: a worker cannot deliver into the queue"},
		"weight 0":        {map[string]string{"EMAIL_MAIN_MEMBERS": "ses:0"}, `EMAIL_MAIN_MEMBERS: "ses:0": the weight has to be a whole number from 1 to 1000`},
		"policy":          {map[string]string{"EMAIL_MAIN_POLICY": "random"}, `EMAIL_MAIN_POLICY: "random" is not allowed; it has to be order or weighted`},
		"host":            {map[string]string{"EMAIL_MAIN_HOST": "x.example"}, "EMAIL_MAIN_HOST: has no effect: main sends with its members"},
		"connections":     {map[string]string{"EMAIL_MAIN_CONNECTIONS": "7"}, "EMAIL_MAIN_CONNECTIONS: has no effect: main sends with its members, so set it for these, or for all (EMAIL_CONNECTIONS)"},
	} {
		t.Run(name, func(t *testing.T) {
			setenv(t, base)
			for k, v := range tt.more {
				t.Setenv(k, v)
			}
			_, warnings, err := Load()
			switch {
			case tt.want == "" && (err != nil || len(warnings) > 0):
				t.Errorf("error %v, warnings %q", err, warnings)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("error %v\nwant  %s", err, tt.want)
			}
		})
	}
}

func TestFailover(t *testing.T) {
	s, _ := load(t, map[string]string{
		"EMAIL_MAILERS": "main,ses,postmark", "EMAIL_MAIN_BACKEND": "failover", "EMAIL_MAIN_MEMBERS": "ses:3,postmark", "EMAIL_MAIN_POLICY": "weighted",
		"EMAIL_SES_HOST": "ses.example", "EMAIL_POSTMARK_HOST": "pm.example",
	})
	members, weighted := mustNamed(t, s, "main").Failover()
	if members.String() != "ses:3,postmark:1" || !weighted {
		t.Errorf("%v, weighted %v", members, weighted)
	}
	for _, name := range []string{"", "ses"} {
		n, err := s.Named(name)
		if err != nil {
			t.Fatal(err)
		}
		if members, _ := n.Failover(); members != nil {
			t.Errorf("%q has members %v", name, members)
		}
	}
}

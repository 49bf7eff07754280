package settings

import (
	"slices"
	"strings"
	"testing"
)

// What Kubernetes sets for a Service named "email" is named as the cause, in one line.
func TestLoad_serviceLinks(t *testing.T) {

	setenv(t, map[string]string{
		"EMAIL_MAILERS": "marketing", "EMAIL_MARKETING_HOST": "smtp.example.com",
		"EMAIL_PORT": "tcp://10.96.0.12:25", "EMAIL_SERVICE_HOST": "10.96.0.12", "EMAIL_SERVICE_PORT": "25", "EMAIL_SERVICE_PORT_SMTP": "25",
		"EMAIL_PORT_25_TCP": "tcp://10.96.0.12:25", "EMAIL_PORT_25_TCP_ADDR": "10.96.0.12", "EMAIL_PORT_25_TCP_PORT": "25", "EMAIL_PORT_25_TCP_PROTO": "tcp",
		"EMAIL_MARKETING_PORT": "tcp://10.96.0.13:2525", "EMAIL_HSOT": "x",
	})
	_, warnings, err := Load()
	const how = "set enableServiceLinks: false in the pod's spec, or "
	for _, want := range []string{
		`EMAIL_PORT: "tcp://10.96.0.12:25" comes from Kubernetes, for the Service named "email": ` + how + "EMAIL_PORT itself",
		`EMAIL_MARKETING_PORT: "tcp://10.96.0.13:2525" comes from Kubernetes, for the Service named "email-marketing": ` + how + "EMAIL_MARKETING_PORT itself",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v\nwant %s", err, want)
		}
	}
	of := func(name string) []string {
		return slices.DeleteFunc(slices.Clone(warnings), func(w string) bool { return !strings.Contains(w, name) })
	}
	links := of("Kubernetes")
	if len(links) != 1 || !strings.HasPrefix(links[0], `EMAIL_SERVICE_HOST: Kubernetes sets this and 6 other variables for the Service named "email"`) {
		t.Errorf("warnings %q, want one of the service links", warnings)
	}
	if len(of("_TCP")) > 0 || len(of("EMAIL_HSOT")) != 1 {
		t.Errorf("warnings %q, want none of each variable, and one of EMAIL_HSOT", warnings)
	}
}

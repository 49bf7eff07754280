package settings

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Kubernetes puts variables into each container for each Service of its namespace, as Docker's links once did: for a
// Service named "email" they are EMAIL_PORT=tcp://10.0.0.1:25, EMAIL_SERVICE_HOST, EMAIL_PORT_25_TCP_ADDR and more. A pod
// whose spec has enableServiceLinks: false gets none.

var (
	serviceLink  = regexp.MustCompile(`^(tcp|udp|sctp)://\S+:\d+$`)
	serviceOwner = regexp.MustCompile(`^(.+)_SERVICE_HOST$`)
	serviceOther = regexp.MustCompile(`^_(SERVICE_HOST|SERVICE_PORT(_.+)?|PORT|PORT_\d+_(TCP|UDP|SCTP)(_(ADDR|PORT|PROTO))?)$`)
)

// linked returns what is wrong with a variable whose value is of a service link, "" if it is not.
func linked(name, value string) string {
	stem, ok := strings.CutSuffix(name, "_PORT")
	if !ok || !serviceLink.MatchString(strings.TrimSpace(value)) {
		return ""
	}
	return fmt.Sprintf("%q comes from Kubernetes, for the Service named %q: set enableServiceLinks: false in the pod's spec, or %s itself",
		value, serviceName(stem), name)
}

func serviceName(stem string) string { return strings.ToLower(strings.ReplaceAll(stem, "_", "-")) }

// serviceLinks takes the variables of service links out of a list of names. It returns the others, and a line for each
// Service.
func serviceLinks(names []string) (others, lines []string) {
	var stems []string
	for _, name := range names {
		if m := serviceOwner.FindStringSubmatch(name); m != nil {
			stems = append(stems, m[1])
		}
	}
	slices.Sort(stems)
	count := map[string]int{}
	for _, name := range names {
		i := slices.IndexFunc(stems, func(stem string) bool {
			end, ok := strings.CutPrefix(name, stem)
			return ok && serviceOther.MatchString(end)
		})
		if i < 0 {
			others = append(others, name)
			continue
		}
		count[stems[i]]++
	}
	for _, stem := range stems {
		lines = append(lines, fmt.Sprintf("%s_SERVICE_HOST: Kubernetes sets this and %d other variables for the Service named %q; they have no effect, "+
			"and enableServiceLinks: false in the pod's spec keeps them away", stem, count[stem]-1, serviceName(stem)))
	}
	return others, lines
}

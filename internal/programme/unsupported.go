package programme

import "fmt"

// This file is the only place that knows what the file format has and this
// version does not: kinds, bases, shapes, and fields. Whoever builds one of them
// takes it off its list here.

const notSupported = "is not supported by this version"

// unsupportedKind returns why a known kind can't be worked out, or "".
func unsupportedKind(kind Kind) string {
	switch kind {
	case Lossback, Rebate:
		return fmt.Sprintf("%q %s, which knows cashback", kind, notSupported)
	default:
		return ""
	}
}

// unsupportedBasis returns why a known basis can't be worked out, or "".
func unsupportedBasis(basis Basis) string {
	switch basis {
	case BasisCash:
		return fmt.Sprintf("%q %s, which knows game", basis, notSupported)
	case BasisRisk, BasisStake:
		return fmt.Sprintf("%q belongs to a rebate, which %s", basis, notSupported)
	default:
		return ""
	}
}

// unsupportedShape returns why a known shape can't be worked out, or "".
func unsupportedShape(shape Shape) string {
	switch shape {
	case ShapeGraduated:
		return fmt.Sprintf("%q %s, which knows slab", shape, notSupported)
	default:
		return ""
	}
}

// unsupportedField returns why a known field of a file can't be honoured, or "".
func unsupportedField(name string) string {
	switch name {
	case "budget", "window":
		return notSupported + ": leave it out"
	default:
		return ""
	}
}

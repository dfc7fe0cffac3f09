package activity

import (
	"math/bits"
	"strings"
)

// field is one field of a line, as a bit; a set of them is a fieldSet.
type field uint16

type fieldSet uint16

const (
	fieldType field = 1 << iota
	fieldID
	fieldBet
	fieldPlayer
	fieldAgent
	fieldParent
	fieldCurrency
	fieldVIP
	fieldRollingPPM
	fieldStatus
	fieldCategory
	fieldAmount
	fieldStake
	fieldPayout
	fieldSource
	fieldAt
)

// fieldsOf returns the fields that a line of the type has, all of them
// required; none for an unknown type.
func fieldsOf(lineType Type) fieldSet {
	const always = fieldType | fieldAt
	switch lineType {
	case TypeAgent:
		return fieldSet(always | fieldAgent | fieldParent | fieldRollingPPM)
	case TypePlayer:
		return fieldSet(always | fieldPlayer | fieldAgent | fieldCurrency | fieldVIP | fieldRollingPPM | fieldStatus)
	case TypeDeposit, TypeWithdrawal:
		return fieldSet(always | fieldID | fieldPlayer | fieldAmount)
	case TypeBet:
		return fieldSet(always | fieldID | fieldPlayer | fieldCategory | fieldStake)
	case TypeResult:
		return fieldSet(always | fieldBet | fieldPayout)
	case TypeVoid:
		return fieldSet(always | fieldBet)
	case TypeWatermark:
		return fieldSet(always | fieldSource)
	}
	return 0
}

// fieldNamed returns the field of a name, 0 if there is none.
func fieldNamed(name string) field {
	switch name {
	case "type":
		return fieldType
	case "id":
		return fieldID
	case "bet":
		return fieldBet
	case "player":
		return fieldPlayer
	case "agent":
		return fieldAgent
	case "parent":
		return fieldParent
	case "currency":
		return fieldCurrency
	case "vip":
		return fieldVIP
	case "rolling_ppm":
		return fieldRollingPPM
	case "status":
		return fieldStatus
	case "category":
		return fieldCategory
	case "amount":
		return fieldAmount
	case "stake":
		return fieldStake
	case "payout":
		return fieldPayout
	case "source":
		return fieldSource
	case "at":
		return fieldAt
	}
	return 0
}

// String returns the field's name in a line.
func (f field) String() string {
	switch f {
	case fieldType:
		return "type"
	case fieldID:
		return "id"
	case fieldBet:
		return "bet"
	case fieldPlayer:
		return "player"
	case fieldAgent:
		return "agent"
	case fieldParent:
		return "parent"
	case fieldCurrency:
		return "currency"
	case fieldVIP:
		return "vip"
	case fieldRollingPPM:
		return "rolling_ppm"
	case fieldStatus:
		return "status"
	case fieldCategory:
		return "category"
	case fieldAmount:
		return "amount"
	case fieldStake:
		return "stake"
	case fieldPayout:
		return "payout"
	case fieldSource:
		return "source"
	case fieldAt:
		return "at"
	}
	return "no field"
}

// index is the field's place in an array with one element per field.
func (f field) index() int { return bits.TrailingZeros16(uint16(f)) }

// numFields is how many fields there are in all.
const numFields = 16

func (s fieldSet) has(f field) bool { return s&fieldSet(f) != 0 }

// all goes through the fields of the set, always in the same order.
func (s fieldSet) all(yield func(field) bool) {
	for rest := s; rest != 0; rest &= rest - 1 {
		if !yield(field(rest & -rest)) {
			return
		}
	}
}

// allFields is the set of all fields.
const allFields fieldSet = 1<<numFields - 1

// names are the names of the fields, always in the same order.
func (s fieldSet) names() []string {
	var names []string
	for f := range s.all {
		names = append(names, f.String())
	}
	return names
}

// String lists the names.
func (s fieldSet) String() string { return strings.Join(s.names(), ", ") }

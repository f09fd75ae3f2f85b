"""Writes constructs.json: what jinja2 in transformers' environment makes of each template of a table.

    pip install transformers==5.24.0 jinja2==3.1.6
    python constructs.py

Where jinja2 raises, the row has the message of `raise_exception` or the name of the error's class.
"""

import datetime
import json
import pathlib

import jinja2
from transformers.utils import chat_template_utils


class Fixed(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2024, 7, 26, 9, 5, 3)


chat_template_utils.datetime = Fixed

MESSAGES = [
    {"role": "system", "content": "Be brief. <b>"},
    {"role": "user", "content": "Hi there,\nyou & 'me'"},
    {"role": "assistant", "content": "  Hello!  "},
    {"role": "user", "content": "größe 你好 🙂"},
]
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Tells the weather of a <place>",
        "parameters": {
            "type": "object",
            "properties": {
                "place": {"type": "string", "description": "The town, e.g. \"Zürich\""},
                "unit": {"type": "string", "enum": ["C", "F"]},
                "days": {"type": "array", "items": {"type": "integer"}},
            },
            "required": ["place"],
        },
    },
}
VARIABLES = {
    "messages": MESSAGES,
    "tools": None,
    "documents": None,
    "add_generation_prompt": True,
    "bos_token": "<s>",
    "eos_token": "</s>",
    "n": 7,
    "f": 2.5,
    "t": True,
    "none_value": None,
    "s": "Hello, World",
    "text": "one\ntwo\n\nthree",
    "empty": "",
    "list": [3, 1, 2],
    "words": ["pear", "Apple", "fig", "apple"],
    "nested": {"b": 1, "a": [1, 2.0, None, True, "x\"y"], "é": {"k": "v"}},
    "people": [
        {"name": "Ann", "age": 30, "city": {"name": "Rome"}},
        {"name": "bob", "age": 25},
        {"name": "Cid", "age": 30, "city": {"name": "Oslo"}},
    ],
    "tool": TOOL,
    "items": "shadow",
    "d": {"items": "own", "get": 1, "x": 2},
}

# Literals, output of types
CASES = r"""
{{ 1 }} {{ -1 }} {{ 1.0 }} {{ 1e20 }} {{ 1.5e-7 }} {{ 123456789012345678 }} {{ 0.1 + 0.2 }}
{{ 1e16 }} {{ 123456789.123456789 }} {{ 1e15 }} {{ 100000.0 * 1e11 }} {{ 0.0001 }} {{ 0.00001 }}
{{ 0x1F }} {{ 0b101 }} {{ 0o17 }} {{ 1_000 }} {{ 1_0.5_0 }}
{{ true }} {{ True }} {{ false }} {{ none }} {{ None }}
{{ 'a' "b" 'c' }}
{{ "tab\tnew\\n \x41 \u00e9 \U0001F642 \'q\' \101" }}
{{ [1, 'a', none, true, 1.0, [], {}, (), (1,), (1, 2)] }}
{{ {'a': 1, 'b': [2], 3: 'c', none: true, (1, 2): 'x'} }}
{{ ["it's", 'say "hi"', "both ' and \"", "\n\t\\", "é\u200b\x07"] }}
{{ (1, 2) }} {{ () }} {{ 1, 2 }}
{{ nested }}
{{ undefined_name }}|{{ undefined_name is defined }}|{{ [undefined_name] }}
{{ messages }}
{{ {'a': 1, 'a': 2} }}
{{ 1 == 1.0 }} {{ {1: 'a'}[1.0] }} {{ {true: 'x'}[1] }}
---
{{ 7 / 2 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ 7 % 3 }} {{ -7 % 3 }} {{ 2 ** 10 }} {{ 2 ** -1 }} {{ 6 / 3 }}
{{ 7.5 // 2 }} {{ -7.5 % 2 }} {{ 7.5 % -2 }} {{ 2.0 ** 3 }} {{ -2 ** 2 }} {{ 2 ** 3 ** 2 }}
{{ 1 + 2 * 3 - 4 }} {{ (1 + 2) * 3 }} {{ 10 - 3 - 2 }} {{ - n }} {{ + n }} {{ --n }}
{{ true + true }} {{ 'ab' * 3 }} {{ 3 * [1, 2] }} {{ [1] + [2] }} {{ (1,) + (2,) }} {{ 'a' * -1 }}|
{{ 1 / 0 }}
{{ 'a' + 1 }}
{{ 1 + 'a' }}
{{ undefined_name + 1 }}
{{ none + 1 }}
{{ 'a' ~ 1 ~ none ~ true ~ 1.0 ~ undefined_name ~ [1] }}
{{ 1 ~ 2 + 3 }} {{ 1 ~ 2 * 3 }}
{{ not true }} {{ not '' }} {{ not not 1 }} {{ true and 'x' }} {{ '' or 'y' }} {{ none or 0 or [] }}
{{ 1 < 2 < 3 }} {{ 3 > 2 > 2 }} {{ 1 == 1 == 1 }} {{ 1 != 2 }} {{ 'a' < 'b' }} {{ [1, 2] < [1, 3] }}
{{ 1 < 'a' }}
{{ none < 1 }}
{{ 'el' in s }} {{ 'x' not in s }} {{ 2 in list }} {{ 'b' in nested }} {{ 1 in (1, 2) }} {{ not 1 in [2] }}
{{ 1 in none }}
{{ 1 in 'abc' }}
{{ 'x' if false }}|{{ 'x' if true else 'y' }}|{{ 'a' if 0 else 'b' if 0 else 'c' }}
{{ ('x' if false).foo }}
{{ 'x' if false is defined else 'z' }}
{{ 2 if 1 == 1 and not false else 3 }}
---
{{ list[0] }} {{ list[-1] }} {{ list[5] }}|{{ list[1:] }} {{ list[:-1] }} {{ list[::-1] }} {{ list[::2] }} {{ list[5:9] }}
{{ s[0] }} {{ s[-1] }} {{ s[1:4] }} {{ s[::-1] }} {{ s[7:] }} {{ s[:5] }} {{ 'größe'[2:4] }} {{ s[-3:-1] }}
{{ s[99] }}|{{ s['x'] }}|{{ n['x'] }}|{{ nested['zz'] }}|{{ list['x'] }}
{{ messages[1:][0].role }} {{ messages[-1]['content'] }} {{ messages[0].content[3:] }}
{{ n[0:1] }}
{{ list[::0] }}
{{ list['a':] }}
{{ nested.a[4] }} {{ nested['é'].k }} {{ nested.a.0 }} {{ nested.a.1 }}
{{ nested.missing.deeper }}
{{ undefined_name.x }}
{{ undefined_name['x'] }}
{{ none_value.x }}|{{ none_value.x is defined }}
{{ none_value['x'] }}|
{{ d['items'] }} {{ d.x }} {{ d['get'] }} {{ d.get('x') }}
{{ d.items() | list }}
{{ s.__class__ }}|{{ s.__class__ is defined }}
{{ s.__class__.__mro__ }}
{{ list.append(1) }}
{{ d.update({'a': 1}) }}
{{ list.append is defined }} {{ d.pop is undefined }}
{{ range(5) }} {{ range(2, 5) | list }} {{ range(10, 0, -3) | list }} {{ range(5)[1] }} {{ range(5)[1:3] }} {{ range(3) | length }}
{{ range(100001) | length }}
{{ range(0, 10, 0) }}
{{ (1, 2)[0] }} {{ [[1, 2], [3]][0][1] }} {{ 'abc'.upper()[1] }}
---
{{ s.upper() }} {{ s.lower() }} {{ s.title() }} {{ s.capitalize() }} {{ s.swapcase() }}
{{ "they're bill's friends from the UK".title() }} {{ "they're bill's".capitalize() }} {{ 'x1y ab-cd'.title() }}
{{ 'straße ǆ ﬁ İ'.upper() }} {{ 'ΑΣ ΑΣΑ'.lower() }} {{ 'ßa'.capitalize() }} {{ 'ßa'.title() }}
{{ '  a b  '.strip() }}|{{ '  a '.lstrip() }}|{{ '  a '.rstrip() }}|{{ 'xxaxx'.strip('x') }}|{{ 'abcba'.strip('ab') }}
{{ '\u00a0\u3000a\u2003\x1c'.strip() }}|{{ '\u200ba'.strip() }}|
{{ 'a,b,,c'.split(',') }} {{ ' a  b c '.split() }} {{ 'a b c'.split(' ', 1) }} {{ 'a b c'.split(none, 1) }} {{ ''.split() }} {{ ''.split(',') }}
{{ 'a,b,c'.rsplit(',', 1) }} {{ ' a b  c '.rsplit(none, 1) }} {{ ' a b  c '.rsplit() }} {{ ' a b c '.split(maxsplit=1) }} {{ 'a--b--c'.split('--', maxsplit=1) }}
{{ 'a b'.split('') }}
{{ 'k=v=w'.partition('=') }} {{ 'k=v=w'.rpartition('=') }} {{ 'kv'.partition('=') }} {{ 'kv'.rpartition('=') }}
{{ 'a\nb\r\nc\x0bd\u2028e\n'.splitlines() }} {{ 'a\n\nb'.splitlines(true) }} {{ ''.splitlines() }} {{ 'a\rb'.splitlines(keepends=true) }}
{{ 'a-b-c'.replace('-', '+') }} {{ 'a-b-c'.replace('-', '+', 1) }} {{ 'abc'.replace('', '.') }} {{ 'abc'.replace('', '.', 2) }} {{ 'aaa'.replace('aa', 'b') }}
{{ s.startswith('Hel') }} {{ s.startswith(('x', 'H')) }} {{ s.endswith('ld') }} {{ s.startswith('W', 7) }} {{ s.endswith('o', 0, 5) }} {{ s.startswith('') }}
{{ s.startswith(['H']) }}
{{ s.find('o') }} {{ s.find('o', 5) }} {{ s.rfind('o') }} {{ s.find('zz') }} {{ s.index('W') }} {{ s.count('o') }} {{ 'aaaa'.count('aa') }} {{ 'abc'.count('') }} {{ 'größe'.find('e') }} {{ s.find('l', -3) }} {{ 'abc'.find('', 9) }}
{{ s.index('zz') }}
{{ s.removeprefix('Hello') }} {{ s.removesuffix('World') }} {{ s.removeprefix('x') }}
{{ 'a'.center(5) }}|{{ 'ab'.center(5, '*') }}|{{ 'a'.ljust(3) }}|{{ 'a'.rjust(3, '.') }}|{{ '-5'.zfill(5) }}|{{ '5'.zfill(1) }}|{{ 'abc'.center(6, '*') }}
{{ ', '.join(words) }} {{ '-'.join('abc') }} {{ ''.join([]) }} {{ '/'.join({'a': 1, 'b': 2}) }}
{{ ','.join([1]) }}
{{ 'a\tb\n\tc'.expandtabs(4) }} {{ '\t'.expandtabs() }}|
{{ 'abc'.isalpha() }} {{ 'ab1'.isalnum() }} {{ '12'.isdigit() }} {{ '²'.isdigit() }} {{ '²'.isdecimal() }} {{ '½'.isnumeric() }} {{ ''.isalpha() }} {{ 'é'.isascii() }} {{ ' \t'.isspace() }} {{ 'A b'.istitle() }} {{ 'Ab Cd'.istitle() }} {{ 'abc1'.islower() }} {{ 'A1'.isupper() }} {{ '1'.isupper() }} {{ 'a b'.isidentifier() }} {{ 'a\n'.isprintable() }}
{{ '{} {}'.format(1, 'a') }} {{ '{1} {0}'.format(1, 2) }} {{ '{a} {b[0]} {c.x}'.format(a=1, b=[2], c={'x': 3}) }} {{ '{{}} {!r} {!s}'.format('a', 'b') }}
{{ '{:>5}|{:<5}|{:^5}|{:*^7}|{:05}|{:+}|{:,}|{:.2f}|{:e}|{:g}|{:x}|{:#x}|{:b}|{:%}|{:.1%}'.format(1, 2, 3, 4, 5, 6, 1234567, 3.14159, 12345.678, 0.00001234, 255, 255, 5, 0.25, 0.256) }}
{{ '{:{w}.{p}}|{:10.3s}|{:_}|{:08.2f}|{:<8}|{: d}|{:,.2f}|{:.3}|{:.10g}|{:c}|{:o}'.format(3.14159, 'abcdef', 1234567, -3.14159, 2.5, 42, 1234567.891, 1234.5, 1234.5, 65, 8, w=10, p=3) }}
{{ '{:010,}|{:=+8}|{:#o}|{:#b}|{:#X}|{:X}|{:E}|{:G}|{:n}|{:5}|{:5}|{!r:>6}'.format(1234567, 42, 8, 5, 255, 255, 1.5, 1e-10, 5, 'a', true, 'b') }}
{{ '{}{}'.format(1) }}
{{ '{a}'.format(b=1) }}
{{ '{:d}'.format('a') }}
{{ '{'.format() }}
{{ '{0.__class__}'.format(1) }}
{{ '%s %d %5.2f %05d %-5s| %x %X %o %e %g %% %r %c %i %+d' % ('a', 3, 3.14159, 42, 'l', 255, 255, 8, 12345.678, 0.0001, 'q', 'z', 3.9, 5) }}
{{ '%s' % 'one' }} {{ '%s' % [1] }} {{ '%s' % (1,) }} {{ '%(a)s-%(b)03d' % {'a': 1, 'b': 2} }} {{ '%5s|%-5s|%.2s|%*d' % ('a', 'b', 'cde', 4, 7) }} {{ '%s' % none }}
{{ '%s %s' % 'a' }}
{{ '%s' % (1, 2) }}
{{ '%d' % 'a' }}
{{ 'plain' % {} }} {{ 'plain' % {'a': 1} }}
{{ 'abc'.encode() is defined }}
{{ 'abc'.casefold() }} {{ 'a'.nosuch is defined }}
{{ 'a'.nosuch() }}
{{ (1.5).is_integer() }} {{ (2.0).is_integer() }} {{ 5 .real }}
{{ '{:.0f} {:.0f} {:.0f} {:.1f}'.format(0.5, 1.5, 2.5, 0.25) }} {{ '%.0f' % 0.5 }} {{ '%.3g|%g|%g|%g' % (1234567, 1e20, 100000, 1000000) }}
---
{{ d.keys() | list }} {{ d.values() | list }} {{ d.get('zz') }} {{ d.get('zz', 'dflt') }} {{ nested.keys() }} {{ nested.items() | length }} {{ {'a': 1}.items() }} {{ {'a': 1}.values() }}
{{ nested.copy() == nested }} {{ [1, 2].index(2) }} {{ [1, 1].count(1) }} {{ (1, 2).index(2) }} {{ list.copy() }}
{{ [1].index(5) }}
{% for k, v in nested.items() %}{{ k }}={{ v }};{% endfor %}
{% for k in nested %}{{ k }}{% endfor %}
{{ dict(a=1, b=2) }} {{ dict({'a': 1}, b=3) }} {{ dict([('x', 1), ('y', 2)]) }} {{ dict() }}
{{ {'a': 1} == {'a': 1.0} }} {{ [1] == (1,) }} {{ 'a' == 'a' }} {{ none == false }} {{ undefined_name == other_undefined }} {{ undefined_name == none }}
{{ {[]: 1} }}
{{ {'a': {}}.a.b is defined }} {{ d[[1]] }}|
---
{{ s | upper }} {{ s | lower }} {{ s | title }} {{ s | capitalize }} {{ "they're bill's-friends (now)" | title }} {{ 5 | upper }}
{{ s | length }} {{ list | count }} {{ nested | length }} {{ undefined_name | length }} {{ '🙂é' | length }}
{{ 5 | length }}
{{ none | length }}
{{ '  x ' | trim }}|{{ 'xxaxx' | trim('x') }}|{{ 5 | trim }}|{{ '\n a \n' | trim }}
{{ s | replace('l', 'L') }} {{ s | replace('l', 'L', 2) }} {{ 121 | replace(1, 'x') }}
{{ undefined_name | default('dflt') }} {{ none | default('dflt') }} {{ '' | default('dflt', true) }} {{ 0 | d(5, boolean=true) }} {{ none | d('x', true) }} {{ undefined_name | default }}|
{{ words | join(', ') }} {{ list | join }} {{ people | join('/', attribute='name') }} {{ 'abc' | join('.') }} {{ [1, none, true, 2.0] | join(' ') }} {{ [] | join('x') }}|
{{ none | join }}
{{ list | first }} {{ list | last }} {{ 'abc' | first }} {{ [] | first is defined }} {{ [] | last }}|{{ nested | first }}
{{ list | sort }} {{ words | sort }} {{ words | sort(case_sensitive=true) }} {{ list | sort(reverse=true) }} {{ people | sort(attribute='age') | map(attribute='name') | join(',') }} {{ people | sort(attribute='age,name', reverse=true) | map(attribute='name') | list }}
{{ [1, 'a'] | sort }}
{{ list | reverse | list }} {{ 'abc' | reverse }} {{ words | reverse | first }} {{ {'a': 1, 'b': 2} | reverse | list }}
{{ nested | dictsort }} {{ {'b': 2, 'A': 3, 'c': 1} | dictsort }} {{ {'b': 2, 'a': 3} | dictsort(by='value') }} {{ {'b': 2, 'A': 3} | dictsort(true) }} {{ {'b': 2, 'A': 3} | dictsort(reverse=true) }}
{{ words | unique | list }} {{ words | unique(true) | list }} {{ [1, 1.0, true, 2] | unique | list }} {{ people | unique(attribute='age') | map(attribute='name') | list }}
{{ list | min }} {{ list | max }} {{ words | min }} {{ people | max(attribute='age') }} {{ [] | min is defined }}
{{ list | sum }} {{ people | sum(attribute='age') }} {{ list | sum(start=10) }} {{ [[1], [2]] | sum(start=[]) }} {{ [] | sum }} {{ [1, 2.5] | sum }}
{{ ['a'] | sum }}
{{ list | map('string') | list }} {{ words | map('upper') | join }} {{ people | map(attribute='city.name', default={}) | list }} {{ ['a-b'] | map('replace', '-', '+') | list }} {{ people | map(attribute='zz') | list }}
{{ people | map(attribute='city.name') | list }}
{{ [[1, 2], [3, 4]] | map(attribute=1) | list }} {{ [[1, 2]] | map('first') | list }} {{ people | map('attr', 'name') | list }}
{{ list | select('odd') | list }} {{ list | reject('odd') | list }} {{ [0, 1, '', 'a', none] | select | list }} {{ list | select('gt', 1) | list }} {{ words | select('in', ['fig']) | list }} {{ ['a', 1] | select('string') | list }}
{{ people | selectattr('age', 'equalto', 30) | map(attribute='name') | join(',') }} {{ people | rejectattr('city') | map(attribute='name') | list }} {{ people | selectattr('city', 'defined') | list | length }} {{ messages | selectattr('role', '==', 'user') | list | length }} {{ messages | rejectattr('role', 'in', ['user', 'system']) | map(attribute='content') | first | trim }}
{{ messages | selectattr('role', 'equalto', 'nobody') | list }} {{ (messages | selectattr('role', 'equalto', 'nobody') | first) is defined }} {{ 'yes' if messages | selectattr('role', 'equalto', 'nobody') }}
{% for g in people | groupby('age') %}{{ g.grouper }}:{{ g.list | map(attribute='name') | join('+') }} {{ g[0] }} {% endfor %}{% for age, group in people | groupby('age') %}{{ age }}{{ group | length }}{% endfor %}
{{ people | groupby('city.name', default='none') | map('first') | list }} {{ ['a', 'B', 'b'] | map('upper') | list | groupby(0) | length }}
{{ [1, 2, 3, 4, 5] | batch(2) | list }} {{ [1, 2, 3, 4, 5] | batch(2, '-') | list }} {{ [1, 2, 3, 4, 5] | slice(3) | list }} {{ [1, 2, 3, 4] | slice(3, 'x') | list }}
{{ 'abc' | list }} {{ nested | list }} {{ (1, 2) | list }} {{ range(3) | list }} {{ undefined_name | list }}
{{ 5 | list }}
{{ '42' | int }} {{ '42.7' | int }} {{ 'x' | int }} {{ 'x' | int(-1) }} {{ 3.9 | int }} {{ '0x1f' | int(base=16) }} {{ ' 7 ' | int }} {{ none | int }} {{ true | int }} {{ '1_000' | int }} {{ '-5' | int }} {{ '1e3' | int }} {{ '' | int }}
{{ '1.5' | float }} {{ 'x' | float }} {{ 'x' | float(1.0) }} {{ 3 | float }} {{ '1e3' | float }} {{ 'nan' | float }} {{ 'inf' | float }} {{ none | float }} {{ '-.5' | float }}
{{ 2.5 | round }} {{ 3.5 | round }} {{ 2.567 | round(2) }} {{ 2.1 | round(method='ceil') }} {{ 2.9 | round(0, 'floor') }} {{ 5 | round }} {{ 2.675 | round(2) }} {{ 1234.567 | round(1) }} {{ 2.123 | round(2, 'ceil') }} {{ (2.5 | round) | int }}
{{ -3 | abs }} {{ -2.5 | abs }}
{{ 'a' | abs }}
{{ text | indent }}|{{ text | indent(2, true) }}|{{ text | indent(width=2, blank=true) }}|{{ text | indent('> ') }}|{{ text | indent(2, first=true, blank=true) }}|{{ 'a\n' | indent(2) }}|
{{ 'foo bar baz qux' | truncate(9) }}|{{ 'foo bar baz qux' | truncate(9, true) }}|{{ 'foo bar baz qux' | truncate(11) }}|{{ 'foo bar baz qux' | truncate(9, false, '!', 0) }}|{{ 'foobarbaz qux' | truncate(8, leeway=0) }}
{{ 'a b  c-d é_f' | wordcount }} {{ '' | wordcount }}
{{ 'a' | center(5) }}|{{ 'ab' | center(7) }}|
{{ '%s - %s' | format('a', 1) }} {{ '%(x)s' | format(x=1) }} {{ '%.2f' | format(3.14159) }}
{{ '<a href="x">&\'</a>' | e }} {{ '<' | escape | escape }} {{ ('<' | safe) + '<' }} {{ ('<' | e) ~ '<' }} {{ '<' | safe | e }} {{ '<' | e | forceescape }} {{ ['<' | e] }}
{{ 'a b&c=d/é' | urlencode }} {{ {'a b': 'c d', 'e': '/'} | urlencode }} {{ [('x', 1)] | urlencode }} {{ 5 | urlencode }}
{{ 1 | filesizeformat }} {{ 999 | filesizeformat }} {{ 1000 | filesizeformat }} {{ 1234567 | filesizeformat }} {{ 1048576 | filesizeformat(true) }} {{ '2000' | filesizeformat }}
{{ {'class': 'a<b', 'id': none, 'x': 1} | xmlattr }}|{{ {} | xmlattr }}|{{ {'a': 1} | xmlattr(false) }}
{{ 5 | string }} {{ none | string }} {{ [1, 'a'] | string }} {{ 5 | string | length }}
{{ nested | attr('items') is defined }} {{ d | attr('x') is defined }} {{ s | attr('upper') is callable }}
{{ nested | items | list }} {{ undefined_name | items | list }}
{{ s | items | list }}
{{ s | nosuchfilter }}
{{ 'nosuch' is filter }} {{ 'upper' is filter }} {{ 'odd' is test }} {{ 'nosuch' is test }}
{{ s | upper | lower | title | replace('H', 'J') | length }}
{{ list | sort | first + 1 }} {{ (list | first) * 2 + list | length }}
{{ -list | first }}
---
{{ nested | tojson }} {{ "<a> & 'b' \" \\ \n é 🙂 \x7f \x01" | tojson }} {{ [1, 1.0, 1e20, none, true, 'x'] | tojson }}
{{ nested | tojson(indent=2) }} {{ [] | tojson(indent=4) }} {{ {} | tojson(indent=2) }} {{ [[1, [2]], {}] | tojson(indent=1) }} {{ [1] | tojson(indent='--') }} {{ [1, [2]] | tojson(indent=0) }}
{{ nested | tojson(ensure_ascii=true) }} {{ '🙂é\x7f' | tojson(ensure_ascii=true) }}
{{ nested | tojson(separators=(',', ':')) }} {{ nested | tojson(sort_keys=true) }} {{ nested | tojson(separators=[', ', ' = '], indent=1) }}
{{ {1: 2, none: 3, true: 4, 1.5: 5} | tojson }} {{ (1, 2) | tojson }} {{ {'b': 1, 'a': 2} | tojson }}
{{ undefined_name | tojson }}
{{ {(1, 2): 3} | tojson }}
{{ range(3) | tojson }}
{{ namespace(a=1) | tojson }}
{{ tool | tojson }} {{ tool | tojson(indent=4) }}
{{ tool.function.parameters.properties | tojson(true) }}
{{ ('nan' | float) | tojson }} {{ ('-inf' | float) | tojson }}
---
{{ 3 is odd }} {{ 4 is even }} {{ 9 is divisibleby 3 }} {{ 9 is divisibleby(2) }} {{ 'x' is defined }} {{ undefined_name is undefined }} {{ none is none }} {{ none is not none }}
{{ none is iterable }} {{ 'a' is iterable }} {{ 5 is iterable }} {{ nested is iterable }} {{ undefined_name is iterable }} {{ range(2) is iterable }} {{ (list | map('string')) is iterable }} {{ nested.items() is iterable }}
{{ 'a' is sequence }} {{ list is sequence }} {{ nested is sequence }} {{ none is sequence }} {{ 5 is sequence }} {{ (1,) is sequence }} {{ undefined_name is sequence }} {{ nested.items() is sequence }} {{ (list | map('string')) is sequence }} {{ range(2) is sequence }}
{{ 'a' is string }} {{ 5 is string }} {{ nested is mapping }} {{ list is mapping }} {{ 5 is number }} {{ true is number }} {{ 2.5 is number }} {{ 'a' is number }}
{{ true is boolean }} {{ 1 is boolean }} {{ true is true }} {{ 1 is true }} {{ false is false }} {{ 0 is false }} {{ 5 is integer }} {{ true is integer }} {{ 5.0 is integer }} {{ 5.0 is float }} {{ 5 is float }}
{{ 'abc' is lower }} {{ 'ABC' is upper }} {{ 'aBc' is lower }} {{ '' is lower }} {{ 5 is upper }}
{{ 1 is eq 1 }} {{ 1 is equalto(2) }} {{ 1 is ne 2 }} {{ 2 is gt 1 }} {{ 2 is greaterthan 1 }} {{ 2 is ge 2 }} {{ 1 is lt 2 }} {{ 1 is lessthan 2 }} {{ 1 is le 1 }} {{ 1 is in [1] }} {{ 'a' is in 'abc' }}
{{ 1 is == 1 }}
{{ none is sameas none }} {{ 1 is sameas 1.0 }} {{ true is sameas 1 }} {{ list is sameas list }} {{ [1] is sameas [1] }}
{{ s.upper is callable }} {{ range is callable }} {{ 5 is callable }} {{ namespace is callable }} {{ undefined_name is callable }}
{{ '<' | e is escaped }} {{ ('<' | e) is escaped }} {{ '<' is escaped }} {{ 'a' is not defined or true }}
{{ 5 is nosuchtest }}
{{ 'a' is odd }}
{{ none is odd }}
{{ 3 is odd and 4 is even }} {{ not 3 is odd }} {{ 3 is not even }} {{ n is defined and n is number and n > 5 }}
{{ tools is none }} {{ tools is defined }} {{ documents is not none }} {{ tools is iterable }} {{ tools is not none and tools }}
{{ messages is iterable and messages is not string and messages is not mapping }}
---
{% for x in list %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.depth }}{{ loop.depth0 }} {% endfor %}
{% for x in list %}{{ loop.previtem }}<{{ x }}>{{ loop.nextitem }} {% endfor %}{% for x in list %}{{ loop.previtem is defined }}{% endfor %}
{% for x in list %}{{ loop.cycle('a', 'b') }}{{ loop.changed(x > 1) }}{% endfor %}
{% for x in [] %}x{% else %}none{% endfor %} {% for x in undefined_name %}x{% else %}none{% endfor %}
{% for x in none %}{% endfor %}
{% for x in 5 %}{% endfor %}
{% for x in list if x > 1 %}{{ x }}{{ loop.index }}{{ loop.length }} {% else %}no{% endfor %} {% for x in list if x > 9 %}{{ x }}{% else %}no{% endfor %}
{% for x in list %}{% if x == 1 %}{% continue %}{% endif %}{{ x }}{% endfor %} {% for x in list %}{% if x == 1 %}{% break %}{% endif %}{{ x }}{% endfor %}
{% for a, b in [(1, 2), (3, 4)] %}{{ a }}{{ b }}{% endfor %} {% for (a, (b, c)) in [(1, (2, 3))] %}{{ a }}{{ b }}{{ c }}{% endfor %} {% for a, b in ['xy'] %}{{ b }}{{ a }}{% endfor %}
{% for a, b in [(1, 2, 3)] %}{% endfor %}
{% for a, b in [1] %}{% endfor %}
{% for x in [1, [2, [3]]] recursive %}{% if x is iterable %}({{ loop(x) }}){% else %}{{ x }}{{ loop.depth }}{% endif %}{% endfor %}
{% for x in [1] %}{{ loop([2]) }}{% endfor %}
{% for x in list %}{% for y in 'ab' %}{{ x }}{{ y }}{{ loop.index }}{% endfor %}{{ loop.index }}{% endfor %}{{ loop is defined }}
{% for x in list %}{% set y = x %}{% endfor %}{{ y is defined }} {% set z = 1 %}{% for x in list %}{{ z }}{% set z = x %}{{ z }}{% endfor %}{{ z }}
{% for c in 'aé🙂' %}[{{ c }}]{% endfor %} {% for x in range(3) %}{{ x }}{% endfor %} {% for x in list | reverse %}{{ x }}{{ loop.last }}{% endfor %}
{% for m in messages %}{% if loop.first and m.role == 'system' %}S{% elif m['role'] == 'user' %}U{% else %}A{% endif %}{% endfor %}
{% for x in list %}{{ loop.index if not loop.last else 'end' }}{{ ', ' if not loop.last }}{% endfor %}
{% for x in [1, 2, 3, 4] if x is even %}{{ loop.previtem }}{{ x }}{% endfor %} {% for k, v in {'a': 1} | dictsort %}{{ k }}{{ v }}{% endfor %}
{{ loop }}|{% for x in [1] %}{{ loop }}{% endfor %}
---
{% if n > 5 %}big{% elif n > 3 %}mid{% else %}small{% endif %} {% if undefined_name %}x{% else %}y{% endif %} {% if not empty and list %}z{% endif %} {% if 0 %}{% elif [] %}{% endif %}
{% set x = 5 %}{{ x }} {% set a, b = 1, 2 %}{{ a }}{{ b }} {% set (c, d) = [3, 4] %}{{ c }}{{ d }} {% set t = 1, 2 %}{{ t }}
{% set x %}block {{ n }}{% endset %}{{ x }}|{% set x | upper | replace('B', 'P') %}b{{ s }}{% endset %}{{ x }}
{% set ns = namespace(found=false, n=0) %}{% for x in list %}{% set ns.n = ns.n + x %}{% if x == 2 %}{% set ns.found = true %}{% endif %}{% endfor %}{{ ns.n }}{{ ns.found }}{{ ns.zz is defined }} {{ ns }}
{% set ns = namespace() %}{% set ns.a = 1 %}{% set ns.b %}text{% endset %}{{ ns.a }}{{ ns.b }}{{ ns['a'] }} {% set ns2 = namespace({'x': 1}, y=2) %}{{ ns2.x }}{{ ns2.y }}
{% set d.x = 1 %}
{% set nope.x = 1 %}
{% set ns = namespace(_x=1) %}
{% if true %}{% set inner = 1 %}{% endif %}{{ inner }} {% with a = 1, b = n %}{{ a }}{{ b }}{% set c = 5 %}{% endwith %}{{ a is defined }}{{ c is defined }} {% with %}{% set q = 1 %}{{ q }}{% endwith %}
{% set a = 1 %}{% with a = 2, b = a %}{{ a }}{{ b }}{% endwith %}{{ a }}
{% macro m(a, b=2, c='x') %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ m(1) }} {{ m(1, 3) }} {{ m(1, c='z') }} {{ m() }} {{ m(b=5, a=4) }}
{% macro m(a) %}{{ a }}|{{ varargs }}|{{ kwargs }}{% endmacro %}{{ m(1, 2, 3, x=4) }}
{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, 2) }}
{% macro m(a) %}{{ a }}{% endmacro %}{{ m(1, z=2) }}
{% macro m(a) %}{{ a.x }}{% endmacro %}{{ m() }}
{% macro m(a, b=a) %}{{ a }}{{ b }}{% endmacro %}{{ m(1) }}{{ m.name }}{{ m.arguments }}{{ m.catch_kwargs }}{{ m.caller }}{{ m }}
{% macro rec(n) %}{{ n }}{% if n > 0 %}{{ rec(n - 1) }}{% endif %}{% endmacro %}{{ rec(5) }}
{% macro outer() %}{{ later }}{% endmacro %}{% set later = 7 %}{{ outer() }} {% macro wrap() %}<{{ caller() }}>{% endmacro %}{% call wrap() %}in {{ n }}{% endcall %}
{% macro each(xs) %}{% for x in xs %}{{ caller(x, loop.index) }}{% endfor %}{% endmacro %}{% call(x, i) each(list) %}{{ i }}:{{ x }} {% endcall %}
{% macro m() %}{{ caller is defined }}{% endmacro %}{{ m() }}{% call m() %}{% endcall %}
{% macro m() %}x{% endmacro %}{% call m() %}y{% endcall %}
{% macro f(x) %}{% set x = x + 1 %}{{ x }}{% endmacro %}{{ f(1) }}{{ x is defined }}{{ f(f(1) | int) }} {{ f(1) | upper | length }}
{% filter upper | replace('A', 'B') %}a{{ s }}{% endfilter %}
{% raw %}{{ not }} {% if %}{# x #}{% endraw %}|{%- raw -%} x {%- endraw -%} |
{% block b %}in {{ n }}{% endblock %} {% set top = 1 %}{% block c %}{{ top }}{% endblock c %} {% for i in [1] %}{% block e %}{{ i is defined }}{% endblock %}{% endfor %}
{% generation %}gen {{ n }}{% endgeneration %}|{% generation %}
x
{% endgeneration %}y
{% autoescape false %}{{ '<' }}{% endautoescape %}
{% print n, s %} {{ cycler('a', 'b').next() }} {% set c = cycler(1, 2) %}{{ c.next() }}{{ c.next() }}{{ c.next() }}{{ c.current }}{{ c.reset() }}{{ c.next() }}
{% set j = joiner('|') %}{{ j() }}a{{ j() }}b{{ j() }}c {% set k = joiner() %}{{ k() }}x{{ k() }}
{{ raise_exception('no ' ~ n) }}
{% if n == 8 %}{{ raise_exception('never') }}{% endif %}fine
{{ strftime_now('%Y-%m-%d %H:%M:%S') }} {{ strftime_now('%d %b %Y') }} {{ strftime_now('%A, %B %-d, %I:%M %p %j %y %e %U %W %w %u %G-%V %f %%') }} {{ strftime_now('') }}|{{ strftime_now('%D %T %F %R %a %h %C') }}|{{ strftime_now('%c') }}|{{ strftime_now('%x %X') }}|{{ strftime_now('%Z%z') }}
{% include 'x' %}
{% extends 'x' %}
{% do list.append(1) %}
{% nosuch %}
{% if true %}unclosed
{% for x in list %}{% endif %}
{{ unclosed
{{ 1 + }}
{{ (1 }}
{{ 'unclosed }}
{% endif %}
{{ a b }}
{{ {'a' 1} }}
{{ @ }}
{# never closed
{% raw %} never closed
{% break %}
{% set 5 = 1 %}
{% macro m(a=1, b) %}{% endmacro %}
{{ f(a=1, a=2) }}
{{ f(a=1, 2) }}
{{ 1 is odd is even }}
{{ lipsum is defined }} {{ self is defined }}
{{ dict(*[[('a', 1)]]) }} {{ dict(**{'b': 2}) }} {{ '{} {x}'.format(*[1], **{'x': 2}) }}
{{ 5() }}
{{ s() }}
{{ undefined_name() }}
{{ none() }}
---
"""

# Templates of several lines, and those of white space
BLOCKS = [
    "a\n  {% if true %}\n  b\n  {% endif %}\nc\n",
    "a\n  {%+ if true %}\n  b\n  {%- endif %}\nc\n\n",
    "a \n {{- n -}} \n b {{ n }}\n{{ n }}\n\nc",
    "{% for x in list %}\n  {{ x }}\n{% endfor %}\nend\n",
    "{% for x in list -%}\n  {{ x }}\n{%- endfor %}\nend",
    "{%- for x in list %}\n  {{- x }}\n{% endfor -%}\n  end",
    "  {# comment #}\nx {# inline #} y\n  {#- strip -#}  \nz{# multi\nline #}\nw",
    "{% if true +%}\nx\n{% endif %}\ny",
    "x {% if true %} y {% endif %} z",
    "\t {% set a = 1 %}\t\n{{ a }}",
    "{{ '\n' }}{{ 'a\r\nb' }}\r\nc\rd\r\n",
    "{{ bos_token }}{% for m in messages %}\n{{ m.content }}\n{% endfor %}\n",
    "line\n\n\n{%- if true %}\n\nx\n\n{% endif -%}\n\n\nend\n\n",
    "{% set x -%}\n  a\n{%- endset %}[{{ x }}]\n{% raw -%}\n  {{ x }}\n{%- endraw %}\nafter",
    "{% macro f(x) -%}\n  <{{ x }}>\n{%- endmacro %}\n{{ f(1) }}\n{{- f(2) }}",
    "{{ {'a': {'b': 1}}['a']['b'] }}{{ {'x': {}}}}",
    "{%if true%}x{%endif%}{{n}}{{-n-}}{{ n-1 }}{{ n -1 }}{{ [1,2,][0] }}{{ {'a':1,}.a }}",
    "   {% if true %}{% if true %}   x   {% endif %}{% endif %}   \n   {% if true %}y{% endif %}   \n",
    "{% if true %}\n\n\nx{% endif %}\n\ny\n",
    "a{#- x -#} b {#+ y +#}\nc\n",
    "{{ '%}' }}{{ '}}' }}{{ \"{{\" }}{% set x = '{% endif %}' %}{{ x }}",
    "\n\n  {%- set x = 1 -%}  \n\n{{ x }}",
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}",
    "{{ 'a' if true else\n 'b' }}{{\n n\n}}{%\nif\ntrue\n%}x{%\nendif\n%}",
    "é{{ 'ü' }}\u2028{% if true %}\u00a0{% endif %}\u3000{%- if true %} x{% endif %}",
]

EXTRA = {"tools": [TOOL]}

# The shapes of well-known chat templates, written anew with the constructs that these use.
SHAPES = {
    "llama-3": (
        "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
    ),
    "llama-3.1": """{{- bos_token }}
{%- if custom_tools is defined %}
    {%- set tools = custom_tools %}
{%- endif %}
{%- if not tools_in_user_message is defined %}
    {%- set tools_in_user_message = true %}
{%- endif %}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{#- The system message comes first. #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if builtin_tools is defined or tools is not none %}
    {{- "Environment: ipython\\n" }}
{%- endif %}
{{- "Today Date: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- if tools_in_user_message and not tools is none %}
    {%- if messages | length != 0 %}
        {%- set first_user_message = messages[0]['content']|trim %}
        {%- set messages = messages[1:] %}
    {%- else %}
        {{- raise_exception("Cannot put tools in the first user message when there's no first user message!") }}
    {%- endif %}
    {{- '<|start_header_id|>user<|end_header_id|>\\n\\n' -}}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
    {{- first_user_message + "<|eot_id|>"}}
{%- endif %}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("This model only supports single tool-calls at once!") }}
        {%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
        {{- '{"name": "' + tool_call.name + '", ' }}
        {{- '"parameters": ' }}
        {{- tool_call.arguments | tojson }}
        {{- "}" }}
        {{- "<|eot_id|>" }}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}
        {%- if message.content is mapping or message.content is iterable %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
""",
    "mistral": """{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace() %}
{%- set ns.index = 0 %}
{%- for message in loop_messages %}
    {%- if not (message.role == "tool" or message.role == "tool_results" or (message.tool_calls is defined and message.tool_calls is not none)) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("After the optional system message, conversation roles must alternate user/assistant/user/assistant/...") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == user_messages[-1]) %}
            {{- "[AVAILABLE_TOOLS] [" }}
            {%- for tool in tools %}
                {%- set tool = tool.function %}
                {{- '{"type": "function", "function": {' }}
                {%- for key, val in tool.items() if key != "return" %}
                    {%- if val is string %}
                        {{- '"' + key + '": "' + val + '"' }}
                    {%- else %}
                        {{- '"' + key + '": ' + val|tojson }}
                    {%- endif %}
                    {%- if not loop.last %}
                        {{- ", " }}
                    {%- endif %}
                {%- endfor %}
                {{- "}}" }}
                {%- if not loop.last %}
                    {{- ", " }}
                {%- else %}
                    {{- "]" }}
                {%- endif %}
            {%- endfor %}
            {{- "[/AVAILABLE_TOOLS]" }}
        {%- endif %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message.tool_calls is defined and message.tool_calls is not none %}
        {{- "[TOOL_CALLS] [" }}
        {%- for tool_call in message.tool_calls %}
            {%- set out = tool_call.function|tojson %}
            {{- out[:-1] }}
            {%- if not tool_call.id is defined or tool_call.id|length != 9 %}
                {{- raise_exception("Tool call IDs should be alphanumeric strings with length 9!") }}
            {%- endif %}
            {{- ', "id": "' + tool_call.id + '"}' }}
            {%- if not loop.last %}
                {{- ", " }}
            {%- else %}
                {{- "]" + eos_token }}
            {%- endif %}
        {%- endfor %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token}}
    {%- elif message["role"] == "tool_results" or message["role"] == "tool" %}
        {%- if message.content is defined and message.content.content is defined %}
            {%- set content = message.content.content %}
        {%- else %}
            {%- set content = message.content %}
        {%- endif %}
        {{- '[TOOL_RESULTS] {"content": ' + content|string + ", " }}
        {{- '"call_id": "' + message.tool_call_id + '"}[/TOOL_RESULTS]' }}
    {%- else %}
        {{- raise_exception("Only user and assistant roles are supported, with the exception of an initial optional system message!") }}
    {%- endif %}
{%- endfor %}
""",
    "qwen2.5": """{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0]['role'] == 'system' %}
        {{- messages[0]['content'] }}
    {%- else %}
        {{- 'You are a helpful assistant.' }}
    {%- endif %}
    {{- "\\n\\n# Tools\\n\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools>\\n{\\"name\\": <function-name>, \\"arguments\\": <args-json-object>}\\n<|im_end|>\\n" }}
{%- else %}
    {%- if messages[0]['role'] == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {{- '<|im_start|>' + message.role }}
        {%- if message.content %}
            {{- '\\n' + message.content }}
        {%- endif %}
        {%- for tool_call in message.tool_calls %}
            {%- if tool_call.function is defined %}
                {%- set tool_call = tool_call.function %}
            {%- endif %}
            {{- '\\n<tool_call>\\n{"name": "' }}
            {{- tool_call.name }}
            {{- '", "arguments": ' }}
            {{- tool_call.arguments | tojson }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if (loop.index0 == 0) or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' }}
        {{- message.content }}
        {{- '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
""",
    "qwen3": """{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning_content = message.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set reasoning_content = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index %}
            {%- if loop.last or (not loop.last and reasoning_content) %}
                {{- '<|im_start|>' + message.role + '\\n<think>\\n' + reasoning_content.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
            {%- else %}
                {{- '<|im_start|>' + message.role + '\\n' + content }}
            {%- endif %}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
""",
    "vicuna": (
        "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'].strip() + ' ' %}{% else %}{% set loop_messages = messages %}{% set system_message = 'A chat. ' %}{% endif %}{{ bos_token }}{{ system_message }}{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if message['role'] == 'user' %}{{ 'USER: ' + message['content'].strip() + ' ' }}{% elif message['role'] == 'assistant' %}{{ 'ASSISTANT: ' + message['content'].strip() + eos_token }}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
    ),
    "llama-2": (
        "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
    ),
    "gemma": """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set first_user_prefix = messages[0]['content'] + '\n\n' -%}
    {%- else -%}
        {%- set first_user_prefix = messages[0]['content'][0]['text'] + '\n\n' -%}
    {%- endif -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("Conversation roles must alternate user/assistant/user/assistant/...") }}
    {%- endif -%}
    {%- if (message['role'] == 'assistant') -%}
        {%- set role = "model" -%}
    {%- else -%}
        {%- set role = message['role'] -%}
    {%- endif -%}
    {{ '<start_of_turn>' + role + '\n' + (first_user_prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'image' -%}
                {{ '<start_of_image>' }}
            {%- elif item['type'] == 'text' -%}
                {{ item['text'] | trim }}
            {%- endif -%}
        {%- endfor -%}
    {%- else -%}
        {{ raise_exception("Invalid content type") }}
    {%- endif -%}
    {{ '<end_of_turn>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<start_of_turn>model\n'}}
{%- endif -%}
""",
    "deepseek": (
        "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}{% set ns = namespace(is_first=false, is_tool=false, is_output_first=true, system_prompt='', is_first_sp=true) %}{%- for message in messages %}{%- if message['role'] == 'system' %}{%- if ns.is_first_sp %}{% set ns.system_prompt = ns.system_prompt + message['content'] %}{% set ns.is_first_sp = false %}{%- else %}{% set ns.system_prompt = ns.system_prompt + '\\n\\n' + message['content'] %}{%- endif %}{%- endif %}{%- endfor %}{{ bos_token }}{{ ns.system_prompt }}{%- for message in messages %}{%- if message['role'] == 'user' %}{%- set ns.is_tool = false -%}{{'<｜User｜>' + message['content']}}{%- endif %}{%- if message['role'] == 'assistant' and 'tool_calls' in message %}{%- set ns.is_tool = false -%}{%- for tool in message['tool_calls'] %}{%- if not ns.is_first %}{{'<｜Assistant｜><｜tool▁calls▁begin｜>' + tool['function']['name'] + '\\n' + '```json' + '\\n' + tool['function']['arguments'] | tojson + '\\n' + '```'}}{%- set ns.is_first = true -%}{%- else %}{{'\\n' + tool['function']['name']}}{%- endif %}{%- endfor %}{{'<｜tool▁calls▁end｜><｜end▁of▁sentence｜>'}}{%- endif %}{%- if message['role'] == 'assistant' and 'tool_calls' not in message %}{%- if ns.is_tool %}{{'<｜tool▁outputs▁end｜>' + message['content'] + '<｜end▁of▁sentence｜>'}}{%- set ns.is_tool = false -%}{%- else %}{% set content = message['content'] %}{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}{{'<｜Assistant｜>' + content + '<｜end▁of▁sentence｜>'}}{%- endif %}{%- endif %}{%- if message['role'] == 'tool' %}{%- set ns.is_tool = true -%}{%- if ns.is_output_first %}{{'<｜tool▁outputs▁begin｜>' + message['content']}}{%- set ns.is_output_first = false %}{%- else %}{{'\\n' + message['content']}}{%- endif %}{%- endif %}{%- endfor -%}{% if ns.is_tool %}{{'<｜tool▁outputs▁end｜>'}}{% endif %}{% if add_generation_prompt and not ns.is_tool %}{{'<｜Assistant｜><think>\\n'}}{% endif %}"
    ),
    "chatml": (
        "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are helpful<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    "schema-macros": """{%- macro render_type(spec, required, nullable=false) -%}
    {%- if spec.type == "array" -%}
        {%- if spec['items'] -%}
            {%- set inner = render_type(spec['items'], required) -%}
            {{- inner }}[]
        {%- else -%}
            any[]
        {%- endif -%}
    {%- elif spec.type is iterable and spec.type is not string -%}
        {{- spec.type | join(' | ') }}
    {%- elif spec.type == "object" -%}
        {{- "{\\n" }}
        {%- for name, prop in spec.properties.items() -%}
            {{- name -}}
            {%- if name not in (spec.required or []) %}{{- "?" }}{%- endif -%}
            {{- ": " -}}
            {{ render_type(prop, spec.required or []) }}
            {%- if prop.enum %} // {{ prop.enum | map('tojson') | join(', ') }}{% endif -%}
            {%- if not loop.last %}{{- "," }}{%- endif -%}
            {{- "\\n" }}
        {%- endfor -%}
        {{- "}" }}
    {%- else -%}
        {{- {'integer': 'number', 'float': 'number'}.get(spec.type, spec.type) }}
    {%- endif -%}
    {%- if nullable %} | null{% endif %}
{%- endmacro -%}
{%- macro render_tools(tools) %}
    {%- for tool in tools | default([], true) %}
        {%- set fn = tool.function %}
// {{ fn.description | default('') }}
type {{ fn.name }} = (_: {{ render_type(fn.parameters, []) }}) => any;
    {%- endfor %}
{%- endmacro -%}
{{ render_tools(tools) }}
{%- for message in messages %}
<|start|>{{ message.role }}<|message|>{{ message.content }}{{ "<|end|>" if not loop.last else "<|return|>" }}
{%- endfor %}
""",
}

TOOL_TALK = [
    {"role": "user", "content": "Weather in Zürich?"},
    {"role": "assistant", "tool_calls": [{"id": "abcdef123", "type": "function", "function": {"name": "get_weather", "arguments": {"place": "Zürich", "days": [1, 2]}}}]},
    {"role": "tool", "tool_call_id": "abcdef123", "name": "get_weather", "content": "{\"t\": 21.5}"},
    {"role": "assistant", "content": "<think>\nwarm\n</think>\n\nIt is 21.5 degrees."},
    {"role": "user", "content": "Thanks"},
]


def cases():
    for group in CASES.split("\n---\n"):
        lines = group.strip("\n").split("\n")
        at = 0
        while at < len(lines):
            # A template that goes on on the next lines is joined until the block it opens is closed.
            template = lines[at]
            if template.startswith("{% generation %}"):
                template = "\n".join(lines[at : at + 3])
                at += 2
            at += 1
            if template:
                yield template, {}
    for template in BLOCKS:
        yield template, {}
    for shape in SHAPES.values():
        yield shape, {}
        yield shape, EXTRA
        yield shape, {**EXTRA, "messages": TOOL_TALK}
        yield shape, {"messages": MESSAGES[1:], "add_generation_prompt": False}
        yield shape, {"messages": [MESSAGES[1], MESSAGES[1]], "enable_thinking": False}


def render(template, extra):
    try:
        compiled = chat_template_utils._compile_jinja_template(template)
        return {"expected": compiled.render(**{**VARIABLES, **extra})}
    except jinja2.exceptions.TemplateError as error:
        if type(error) is jinja2.exceptions.TemplateError:
            return {"raised": str(error)}
        return {"error": type(error).__name__}
    except Exception as error:
        return {"error": type(error).__name__}


rows = [{"template": template, **({"variables": extra} if extra else {}), **render(template, extra)} for template, extra in cases()]
out = {"variables": VARIABLES, "cases": rows}
path = pathlib.Path(__file__).with_suffix(".json")
path.write_text(json.dumps(out, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")
print(len(rows), "cases,", sum("expected" in row for row in rows), "rendered")

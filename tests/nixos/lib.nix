# As much of nixpkgs' lib as the modules here use, so that they can be evaluated where no nixpkgs can be had: a module
# system that checks types and refuses unknown options. That it agrees with the real one is checked by hand (CONTRIBUTING.md).
let
  inherit (builtins)
    attrNames attrValues concatLists concatMap concatStringsSep elem filter foldl' head isAttrs isBool isFunction isInt
    isList isPath isString length listToAttrs map mapAttrs match removeAttrs seq stringLength substring typeOf;

  isOption = value: isAttrs value && value._type or "" == "option";
  show = concatStringsSep ".";
  last = list: builtins.elemAt list (length list - 1);

  # A definition, without its conditions: [ { priority, order, value } … ].
  discharge = value:
    let type = if isAttrs value then value._type or "" else ""; in
    if type == "if" then (if value.condition then discharge value.content else [ ])
    else if type == "merge" then concatMap discharge value.contents
    else if type == "override" then map (one: one // { inherit (value) priority; }) (discharge value.content)
    else if type == "order" then map (one: one // { order = value.priority; }) (discharge value.content)
    else [ { priority = 100; order = 1000; inherit value; } ];

  strongest = definitions:
    let least = foldl' (least: one: if one.priority < least then one.priority else least) 9999 definitions; in
    map (one: one.value) (builtins.sort (a: b: a.order < b.order) (filter (one: one.priority == least) definitions));

  namesIn = concatMap (definition: attrNames definition);
  unique = foldl' (found: one: if elem one found then found else found ++ [ one ]) [ ];

  mergeOption = location: option: definitions:
    let values = strongest definitions; in
    if definitions == [ ] then
      if option ? default then
        # Through the type, as a definition would be.
        option.type.merge location [ option.default ]
      else throw "the option `${show location}' has no value"
    else
      let wrong = filter (value: !option.type.check value) values; in
      if wrong != [ ] then throw "a definition for option `${show location}' is not of type `${option.type.name}': ${typeOf (head wrong)}"
      else option.type.merge location values;

  # Two declarations of one option: only submodules can be added to.
  joinOptions = a: b:
    if isOption a && isOption b then a // { type = a.type.join b.type; }
    else if isOption a || isOption b then throw "an option within an option"
    else zip joinOptions a b;
  zip = join: a: b: a // mapAttrs (name: value: if a ? ${name} then join a.${name} value else value) b;

  evaluate = location: options: definitions:
    let plain = concatMap pushDown definitions; in
    mapAttrs
      (name: option:
        let found = concatMap (one: if one ? ${name} then [ one.${name} ] else [ ]) plain; in
        if isOption option then mergeOption (location ++ [ name ]) option (concatMap discharge found)
        else evaluate (location ++ [ name ]) option found)
      options;
  # A condition on a set is one on each of its members: whether an option is set must not depend on other options.
  pushDown = definition:
    let type = definition._type or ""; in
    if type == "if" then map (mapAttrs (_: content: wrap "if" { inherit (definition) condition; inherit content; })) (pushDown definition.content)
    else if type == "merge" then concatMap pushDown definition.contents
    else if type == "override" then map (mapAttrs (_: content: wrap "override" { inherit (definition) priority; inherit content; })) (pushDown definition.content)
    else [ definition ];

  # All names that no option bears.
  unknown = location: options: definitions:
    let plain = concatMap pushDown definitions; in
    concatMap
      (name:
        let here = location ++ [ name ]; in
        if !(options ? ${name}) then [ (show here) ]
        else if isOption options.${name} then [ ]
        else unknown here options.${name} (concatMap (one: if one ? ${name} then [ one.${name} ] else [ ]) plain))
      (unique (namesIn plain));

  evalModules = { modules, specialArgs ? { }, location ? [ ] }:
    let
      arguments = specialArgs // { inherit config options lib; };
      load = module:
        let
          read = if isPath module || isString module then import module else module;
          found = if isFunction read then read arguments else read;
          structured = found ? options || found ? config || found ? imports;
        in
        concatMap load (found.imports or [ ]) ++ [ {
          options = found.options or { };
          config = if structured && (found ? options || found ? config) then found.config or { } else removeAttrs found [ "imports" "_file" ];
        } ];
      loaded = concatMap load modules;
      options = foldl' joinOptions { } (map (module: module.options) loaded);
      definitions = map (module: module.config) loaded;
      config = evaluate location options definitions;
      strangers = unknown location options definitions;
    in
    {
      inherit options;
      config = if strangers != [ ] then throw "the option `${head strangers}' does not exist" else config;
    };

  simple = name: check: {
    inherit name check;
    merge = location: values:
      if length (unique values) > 1 then throw "the option `${show location}' has conflicting definitions" else head values;
    join = _: throw "two declarations of an option of type ${name}";
    tree = null;
  };
  mergeAnything = values:
    if length values == 1 then head values
    else if builtins.all isAttrs values then
      mapAttrs (name: _: mergeAnything (concatMap (one: if one ? ${name} then [ one.${name} ] else [ ]) values)) (foldl' (a: b: a // b) { } values)
    else if builtins.all isList values then concatLists values
    else last values;

  types = rec {
    str = simple "string" isString;
    lines = str // { merge = _: concatStringsSep "\n"; };
    bool = simple "boolean" isBool;
    int = simple "integer" isInt;
    ints.unsigned = simple "unsigned integer" (value: isInt value && value >= 0);
    path = simple "absolute path" (value: isPath value || (isString value && substring 0 1 value == "/") || isAttrs value && value ? outPath);
    package = simple "package" (value: isAttrs value && value ? outPath || isString value && substring 0 1 value == "/");
    anything = simple "anything" (_: true) // { merge = _: mergeAnything; };
    # Of a unit: one of several definitions that is a list makes one of all.
    setting = anything // {
      merge = location: values:
        if builtins.any isList values then concatMap (value: if isList value then value else [ value ]) values
        else (simple "setting" (_: true)).merge location values;
    };
    enum = words: simple "one of ${concatStringsSep ", " (map builtins.toJSON words)}" (value: elem value words);
    nullOr = type: simple "null or ${type.name}" (value: value == null || type.check value) // {
      merge = location: values: if builtins.all (value: value == null) values then null else type.merge location values;
      tree = type.tree;
    };
    either = a: b: simple "${a.name} or ${b.name}" (value: a.check value || b.check value) // {
      merge = location: values: (if builtins.all a.check values then a else b).merge location values;
      tree = if a.tree != null then a.tree else b.tree;
    };
    coercedTo = from: coerce: to: simple "${from.name} or ${to.name}" (value: from.check value || to.check value) // {
      merge = location: values: to.merge location (map (value: if from.check value then coerce value else value) values);
      tree = to.tree;
    };
    listOf = type: simple "list of ${type.name}" isList // {
      merge = location: values: map
        (value: mergeOption (location ++ [ "*" ]) { inherit type; } (discharge value)) (concatLists values);
      tree = if type.tree == null then null else { "*" = type.tree; };
    };
    attrsOf = type: simple "attribute set of ${type.name}" isAttrs // {
      merge = location: values:
        let
          of = name: concatMap (one: if one ? ${name} then discharge one.${name} else [ ]) values;
          names = filter (name: of name != [ ]) (unique (namesIn values));
        in
        listToAttrs (map
          (name: { inherit name; value = mergeOption (location ++ [ name ]) { inherit type; } (of name); })
          names);
      join = other: attrsOf (type.join other.inner);
      inner = type;
      tree = if type.tree == null then null else { "<name>" = type.tree; };
    };
    submodule = module: submodules [ module ];
    submodules = modules: simple "submodule" (value: isAttrs value || isFunction value || isPath value) // {
      merge = location: values: (evalModules {
        modules = modules ++ map (value: if isAttrs value then { config = value; } else value) values;
        specialArgs.name = last location;
        inherit location;
      }).config;
      join = other: submodules (modules ++ other.modules);
      inherit modules;
      tree = (evalModules { inherit modules; specialArgs.name = "<name>"; }).options;
    };
    unspecified = anything;
    attrs = attrsOf anything;
  };

  wrap = _type: fields: { inherit _type; } // fields;

  lib = rec {
    inherit (builtins) attrNames attrValues concatMap elem filter length head toJSON concatLists concatStringsSep mapAttrs;
    inherit types evalModules isOption unique;
    mkOption = fields: wrap "option" fields;
    mkEnableOption = what: mkOption { type = types.bool; default = false; example = true; description = "Whether to enable ${what}."; };
    mkIf = condition: content: wrap "if" { inherit condition content; };
    mkMerge = contents: wrap "merge" { inherit contents; };
    mkOverride = priority: content: wrap "override" { inherit priority content; };
    mkDefault = mkOverride 1000;
    mkForce = mkOverride 50;
    literalExpression = text: wrap "literalExpression" { inherit text; };

    optional = condition: one: if condition then [ one ] else [ ];
    optionals = condition: list: if condition then list else [ ];
    optionalAttrs = condition: set: if condition then set else { };
    optionalString = condition: text: if condition then text else "";
    filterAttrs = keep: set: removeAttrs set (filter (name: !keep name set.${name}) (attrNames set));
    mapAttrsToList = function: set: attrValues (mapAttrs function set);
    mapAttrs' = function: set: listToAttrs (mapAttrsToList function set);
    zipAttrsWith = function: sets: builtins.zipAttrsWith function sets;
    splitString = separator: text: filter builtins.isString (builtins.split (escapeRegex separator) text);
    recursiveUpdate = a: b: a // mapAttrs (name: value: if isAttrs value && isAttrs (a.${name} or null) then recursiveUpdate a.${name} value else value) b;
    genAttrs = names: function: listToAttrs (map (name: { inherit name; value = function name; }) names);
    count = wanted: list: length (filter wanted list);
    imap0 = function: list: builtins.genList (at: function at (builtins.elemAt list at)) (length list);
    concatStrings = concatStringsSep "";
    concatMapStrings = function: list: concatStrings (map function list);
    hasPrefix = prefix: text: substring 0 (stringLength prefix) text == prefix;
    hasSuffix = suffix: text: stringLength text >= stringLength suffix && substring (stringLength text - stringLength suffix) (-1) text == suffix;
    hasInfix = infix: text: length (builtins.split (escapeRegex infix) text) > 1;
    escapeRegex = builtins.replaceStrings [ "." "*" "+" "?" "(" ")" "[" "{" "|" "^" "$" ] [ "\\." "\\*" "\\+" "\\?" "\\(" "\\)" "\\[" "\\{" "\\|" "\\^" "\\$" ];
    removeSuffix = suffix: text: if hasSuffix suffix text then substring 0 (stringLength text - stringLength suffix) text else text;
    removePrefix = prefix: text: if hasPrefix prefix text then substring (stringLength prefix) (-1) text else text;
    versionAtLeast = a: b: builtins.compareVersions a b >= 0;
    versions.major = version: head (builtins.splitVersion version);
    licenses = { mit = "MIT"; asl20 = "Apache-2.0"; };
    platforms.linux = [ "x86_64-linux" "aarch64-linux" ];
    makeBinPath = concatMapStringsSep ":" (package: "${package}/bin");
    concatMapStringsSep = separator: function: list: concatStringsSep separator (map function list);
  };
in
lib

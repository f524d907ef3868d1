"""Korean records: templates, patterns and word lists, in the notation of `embinv.data.records`.

Particles that change with the last sound (은/는, 이/가, 을/를, 으로/로) follow fixed words only (님, 씨, 원, 건 ...),
never a slot.
"""

LOCALE: str = "ko_KR"

FAKER: dict[str, str] = {
    "last": "last_name",
    "first_m": "first_name_male",
    "first_f": "first_name_female",
    "town": "city",
    "firm": "company",
    "email": "email",
}

WORDS: dict[str, str] = {
    "given": """민준, 서연, 지훈, 지우, 현우, 수빈, 준호, 은지, 성민, 유진, 동현, 혜진, 도윤, 하은, 시우,
        서현, 지민, 예은, 태윤, 소영, 재현, 미경, 승현, 정숙, 영수, 현정, 건우, 나연, 우진, 수진, 상우,
        보람""",
    "metropolis": """서울, 부산, 인천, 대구, 대전, 광주, 울산, 수원, 창원, 성남, 고양, 용인, 청주, 전주, 천안,
        포항, 제주, 김해, 안양, 춘천, 강릉, 여수, 목포, 경주, 구미, 원주, 순천, 군산, 진주, 세종""",
    "weekday": "월요일, 화요일, 수요일, 목요일, 금요일, 토요일",
    "diagnosis": """고혈압, 제2형 당뇨병, 천식, 우울증, 폐렴, 유방암, 편두통, 심방세동, 류마티스 관절염,
        만성 신장병, 갑상선 기능 저하증, 위궤양, 고지혈증, 통풍, 뇌전증, 파킨슨병, 전립선암, 골다공증,
        수면 무호흡증, 빈혈, B형 간염, 불안장애, 대장암, 백내장, 대상포진, 허리 디스크, 담석증, 치매, 백혈병,
        위암""",
    "medication": """메트포르민, 암로디핀, 이부프로펜, 아목시실린, 아토르바스타틴, 오메프라졸, 인슐린,
        설트랄린, 와파린, 타이레놀, 프레드니솔론, 로사르탄, 씬지로이드, 리튬, 플루옥세틴, 아스피린, 가바펜틴,
        클로피도그렐, 메토트렉세이트, 졸피뎀, 푸로세미드""",
    "symptom": """흉통, 어지럼증, 호흡 곤란, 요통, 불면증, 두통, 기침, 고열, 복통, 두근거림, 메스꺼움, 피로,
        관절통, 발진, 왼손 저림, 체중 감소, 시력 저하, 식욕 부진""",
    "job": """회계사, 소프트웨어 개발자, 간호사, 영업 팀장, 프로젝트 매니저, 데이터 분석가, 물류 관리자, 약사,
        디자이너, 요리사, 안내 직원, 전기 기사, 인사 담당자, 고등학교 교사, 사회복지사, 변호사, 번역가,
        운전기사, 점장, 연구원, 경비원, 건축사""",
    "department": "재무팀, 영업팀, 인사팀, 개발팀, 법무팀, 총무팀, 홍보팀, 구매팀, 물류팀, 품질관리팀",
    "leave": "육아휴직, 병가, 연차, 출산휴가, 무급휴가, 경조휴가, 안식년",
    "misconduct": "잦은 지각, 횡령, 직장 내 괴롭힘, 허위 경비 청구, 고객 정보 유출, 무단결근, 음주 근무",
    "product": """노트북, 프린터, 세탁기, 스마트폰, 에어컨, 청소기, 전기밥솥, 냉장고, 카메라, 전자레인지,
        공유기, 태블릿, 전동 킥보드, 공기청정기, 텔레비전, 사무용 의자""",
    "defect": "전원 불량, 소음, 누수, 충전 불량, 화면 파손, 과열, 연결 끊김, 부품 누락, 타는 냄새, 작동 멈춤",
    "goods": """강관, 사무용 가구, 복사 용지, 태양광 패널, 의료용 장갑, 자동차 부품, 와인, 구리선, 운동화,
        타일, 냉동 참치, 녹차, 유리병, 모니터, 배터리, 포장재""",
    "expense": """월세, 등록금, 병원비, 수리비, 항공권, 보험료, 전기 요금, 가구 대금, 변호사 비용, 공사 대금,
        학원비, 회비""",
    "loan": "주택 담보 대출, 자동차 대출, 학자금 대출, 신용 대출, 전세 대출, 사업자 대출",
    "damage": """추돌 사고, 누수, 도난, 주방 화재, 태풍 피해, 자전거 도난, 수하물 분실, 낙상, 유리 파손,
        우박 피해""",
    "dispute": """계약 위반, 부당 해고, 명예 훼손, 의료 과실, 특허 침해, 임금 체불, 사기, 상속 분쟁,
        저작권 침해, 임대료 체납""",
    "topic": """연간 예산, 채용 계획, 신제품 출시, 사무실 이전, 구조 조정, 분기 보고서, 가격 인상, 합병,
        보안 점검, 홈페이지 개편""",
    "thousands": "000, 500, 200, 800, 300, 600, 400, 900",
}

PATTERNS: dict[str, tuple[str, ...]] = {
    "person": ("{last}{given}", "{last}{first_m}", "{last}{first_f}"),
    "age": ("{19..89}세",),
    "city": ("{metropolis}", "{metropolis}", "{town}"),
    "address": ("{metropolis} 중앙로 {1..300}", "{town} 시청로 {1..200}"),
    "company": ("{firm}",),
    "date": ("{1..12}월 {1..28}일", "{1..12}월 {1..28}일", "{2019..2025}년 {1..12}월 {1..28}일"),
    "date_weekday": ("{weekday}", "지난주 {weekday}"),
    "date_month": ("{1..12}월", "{2019..2025}년 {1..12}월"),
    "time": ("오전 {8..11}시", "오후 {1..6}시", "오후 {1..6}시 반"),
    "amount": ("{10..98},{thousands}원", "{2..90}만 원", "{2..90}만 원", "{100..900},{thousands}원"),
    "dose": ("{5..50}mg", "100mg", "하루 두 번", "하루 한 알"),
    "phone": ("010-0000-{1000..9999}", "02-000-{1000..9999}"),
    "id_order": ("{100000..999999}",),
}

TEMPLATES: dict[str, tuple[str, ...]] = {
    "medical": (
        "{person} 님({age})은 {date} {symptom} 증상으로 {city}의 병원에 입원했다.",
        "{person} 님은 {diagnosis} 진단을 받고 {medication} 처방({dose})을 받았다.",
        "재진 기록: {person} 님, {diagnosis} 안정적, {medication} {dose} 유지.",
        "{person} 님은 {medication} 복용 후 {symptom} 증상이 있다고 말했다.",
        "{person} 님의 아버지도 {diagnosis} 환자였으며, {date}에 검사를 예약했다.",
        "담당의 {person} 선생님은 {date_month}부터 {medication} 복용을 중단하게 했다.",
    ),
    "banking": (
        "{person} 님이 {date} {person} 님에게 {amount}을 송금했습니다({expense}).",
        "{city} 지점에서 {person} 님이 {loan} {amount}을 신청했습니다.",
        "{date} {city}에서 결제된 {amount}에 대해 {person} 님이 이의를 제기했다.",
        "{person} 님의 {loan} 연체 금액은 {date_month} 기준 {amount}입니다.",
        "{company}에 {expense} 명목으로 {amount}이 자동 이체되었습니다.",
    ),
    "human resources": (
        "{company}에서 {person} 씨를 채용, 직책은 {job}, 연봉은 {amount}, 근무지는 {city}.",
        "{department} {person} 씨는 {date}부터 {2..30}일 동안 {leave} 예정입니다.",
        "{person} 씨는 {date_month}에 퇴사하고 {city}의 {company}에서 일할 예정이다.",
        "{department} {person} 씨에게 {misconduct} 문제로 {date} 경고장을 보냈다.",
        "면접 기록: {person} 씨, {age}, {job} 지원, 희망 연봉 {amount}.",
    ),
    "support": (
        "{city}의 {person} 고객님이 {product} {defect} 문제로 {amount} 환불을 요청했습니다.",
        "{date}에 구매한 {product} 제품에 {defect} 문제가 있다고 {person} 님이 신고했다.",
        "{company}의 {person} 님이 다시 전화함, {product} {defect} 문제 계속됨.",
        "{person} 님께 {phone} 번으로 연락 바람, {product} {defect} 건.",
        "{person} 고객님의 {product} 교환 안내는 {email} 주소로 보내 주세요.",
    ),
    "travel": (
        "{person} 님, {date} {city}발 {city}행 항공권 예약 완료, 요금 {amount}.",
        "{city} 호텔에 {person} 님 이름으로 {date}부터 3박 예약, 총 {amount}.",
        "태풍 때문에 {city}행 비행기가 취소되어 {person} 님은 {date_weekday}까지 {city}에 머문다.",
    ),
    "legal": (
        "{person} 씨는 {dispute} 문제로 {company} 측에 {amount}을 청구했다.",
        "{person} 씨의 {dispute} 사건 재판은 {date} {time} {city}에서 열린다.",
        "{company} 측은 {dispute} 건으로 {person} 씨에게 {amount}을 지급하기로 합의했다.",
    ),
    "invoices and shipping": (
        "{company} 청구서: {goods} 대금 {amount}, 납부 기한은 {date}.",
        "{goods} 화물이 {date} {city}에서 {city}까지 발송됨, 수령인 {person} 님.",
        "주문 번호 {id_order}: {person} 님의 {product} 배송은 {date} 예정입니다.",
        "{person} 님의 택배는 {address} 이웃집에 맡겼습니다. {time}에 다시 방문합니다.",
    ),
    "insurance": (
        "{city}의 {person} 님이 {damage} 건으로 보험금 {amount}을 청구했다.",
        "{person} 님({age})의 가입 신청은 {diagnosis} 병력 때문에 거절되었다.",
        "{damage} 신고가 {date} 이후에 접수되어 {person} 님의 청구는 기각되었다.",
    ),
    "meetings": (
        "{date} {time}에 {company}의 {person} 님과 {topic} 관련 회의가 있습니다.",
        "{person} 씨가 {topic} 자료를 {date}까지 {department}에 보내기로 했다.",
        "회의록: {person} 부장은 {topic} 안에 반대하며 {date_weekday}까지 수정을 요구했다.",
    ),
}
